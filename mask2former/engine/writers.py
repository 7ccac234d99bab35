"""What a run writes while it trains: a line on the console, metrics.json, TensorBoard events, and
the line that model zoos collect."""

import datetime
import importlib
import importlib.util
import json
import logging
import math
import os
import statistics
import time
from collections.abc import Callable, Mapping
from itertools import takewhile

from detectron2.config import CfgNode
from detectron2.utils.events import (
    EventStorage,
    EventWriter,
    JSONWriter,
    TensorboardXWriter,
    get_event_storage,
)

from mask2former.curves.read import LOG_FILE, METRICS_FILE
from mask2former.engine.checkpoint import write_atomically

logger = logging.getLogger(__name__)

CONSOLE_PERIOD = 20  # iterations, as detectron2
MAX_LINES = 1000  # of metrics.json, below which it has a line for each iteration
ZOO_UNITS = {"train.loss": "", "train.ips": "imgs/s", "train.total_time": ""}


def write_period(max_iter: int) -> int:
    """Iterations between lines of metrics.json: 1 in short runs, detectron2's 20 in long ones."""
    return min(CONSOLE_PERIOD, max(1, max_iter // MAX_LINES))


def keep_lines_before(path: str, iteration: int) -> None:
    """Cut from metrics.json what a resumed run will do again, and lines that a kill cut short."""
    if not os.path.exists(path):
        return
    kept = []
    with open(path, encoding="utf-8") as file:
        for line in file:
            try:
                is_before = json.loads(line)["iteration"] < iteration
            except json.JSONDecodeError:
                continue
            if is_before and line.endswith("\n"):
                kept.append(line)
    write_atomically(path, lambda out: out.write("".join(kept).encode()))


def build_writers(cfg: CfgNode, start_iter: int, max_iter: int) -> list[EventWriter]:
    """What writes every `write_period` iterations of a run that goes on at `start_iter`."""
    folder = cfg.OUTPUT_DIR
    path = os.path.join(folder, METRICS_FILE)
    keep_lines_before(path, start_iter)
    period = write_period(max_iter)
    return [
        JSONWriter(path, window_size=period),
        TensorboardXWriter(folder, window_size=period, purge_step=start_iter or None),
        ModelZooWriter(
            os.path.join(folder, LOG_FILE), cfg.SOLVER.IMS_PER_BATCH, start_iter, cfg.MODEL_ZOO_LOG
        ),
    ]


class ConsoleWriter(EventWriter):
    """One line: time left, iteration, losses, learning rate, seconds an iteration, memory.

    detectron2's, but the losses of the auxiliary layers (loss_ce_0, ...) are only in their sum,
    and memory is there on every device.
    """

    def __init__(self, max_iter: int, window_size: int = CONSOLE_PERIOD) -> None:
        self.max_iter = max_iter
        self.window_size = window_size

    def write(self) -> None:
        storage = get_event_storage()
        if storage.iter >= self.max_iter:  # after training: what is new is the evaluation's
            return
        means = {
            name: history.median(self.window_size)
            for name, history in storage.histories().items()
            if "loss" in name and not name.rpartition("_")[-1].isdigit()
        }
        fields = [f"iter: {storage.iter + 1}/{self.max_iter}"]
        fields += [f"{name}: {value:.4g}" for name, value in means.items()]
        fields += _timing(storage, self.max_iter)
        latest = storage.latest()
        if "lr" in latest:
            fields.append(f"lr: {latest['lr'][0]:.4g}")
        if "max_mem_mb" in latest:
            fields.append(f"max_mem: {latest['max_mem_mb'][0]:.0f}M")
        logger.info("  ".join(fields))


def _timing(storage: EventStorage, max_iter: int) -> list[str]:
    histories = storage.histories()
    if "time" not in histories:  # not measured in the first iterations
        return []
    seconds = histories["time"].median(1000)
    left = datetime.timedelta(seconds=int(seconds * (max_iter - storage.iter - 1)))
    storage.put_scalar("eta_seconds", left.total_seconds(), smoothing_hint=False)
    data = histories["data_time"].median(CONSOLE_PERIOD)
    return [f"eta: {left}", f"time: {seconds:.4f}", f"data_time: {data:.4f}"]


class ModelZooWriter(EventWriter):
    """The line from which model zoos read loss and speed, with no prefix, into a log file.

    TCAPPDLL DATE TIME - Epoch: 0 Iteration: 31  rank : 0  train.loss : 3.14  train.ips : 12.3
    imgs/s train.total_time : 1.3

    Iterations count from 0. The loss is metrics.json's, the median over the iterations since the
    last line, but nan if it was not finite in one of them. ips counts the images of all processes;
    total_time is, as in the zoos' published logs, the seconds of one iteration.
    """

    def __init__(self, log_file: str, num_images: int, start_iter: int, on_console: bool) -> None:
        """
        Args:
            num_images: of an iteration, over all processes.
            on_console: print the lines too, by the zoo's own logger if it is installed.
        """
        self._log_file = log_file
        self._num_images = num_images
        self._last = start_iter - 1
        self._clock = time.perf_counter()
        self._show = _zoo_console() if on_console else None

    def write(self) -> None:
        storage = get_event_storage()
        # Each iteration has one of these, and a loss only if it was finite.
        num_done = len(self._new(storage, "data_time"))
        if not num_done:  # called once more when training has ended
            return
        losses, times = self._new(storage, "total_loss"), self._new(storage, "time")
        now = time.perf_counter()
        # The first iterations are not timed.
        seconds = statistics.fmean(times) if times else (now - self._clock) / num_done
        self._last, self._clock = storage.latest()["data_time"][1], now
        data = {
            "rank": 0,
            "train.loss": statistics.median(losses) if len(losses) == num_done else math.nan,
            "train.ips": self._num_images / seconds,
            "train.total_time": seconds,
        }
        with open(self._log_file, "a", encoding="utf-8") as file:  # which the loggers write to too
            file.write(zoo_line(self._last, data) + "\n")
        if self._show:
            self._show(self._last, data)

    def _new(self, storage: EventStorage, name: str) -> list[float]:
        if name not in storage.histories():
            return []
        recent = reversed(storage.history(name).values())
        return [value for value, _ in takewhile(lambda x: x[1] > self._last, recent)]


def zoo_line(iteration: int, data: Mapping[str, float]) -> str:
    """The line as tcap_dllogger prints it: two spaces where a number has no unit."""
    fields = "".join(f" {name} : {value} {ZOO_UNITS.get(name, '')}" for name, value in data.items())
    return f"TCAPPDLL {datetime.datetime.now()} - Epoch: 0 Iteration: {iteration} {fields}".rstrip()


def _zoo_console() -> Callable[[int, Mapping[str, float]], None]:
    """What prints a line: tcap_dllogger, the zoo's logger, if it is installed, else `print`."""
    zoo = None
    if importlib.util.find_spec("tcap_dllogger") is not None:
        try:
            zoo = importlib.import_module("tcap_dllogger")
        except (ImportError, OSError) as error:  # no training ends for want of a logger
            logger.warning("tcap_dllogger is installed, but cannot be imported: %s", error)
    if zoo is None:
        return lambda iteration, data: print(zoo_line(iteration, data), flush=True)
    level = zoo.Verbosity.DEFAULT
    console = zoo.Logger([zoo.StdOutBackend(level)])
    for name, unit in ZOO_UNITS.items():
        console.metadata(name, {"unit": unit})
    return lambda iteration, data: console.log(step=(0, iteration), data=data, verbosity=level)
