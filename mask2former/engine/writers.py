"""What a run writes while it trains: a line on the console, metrics.json, TensorBoard events."""

import datetime
import json
import logging
import os

from detectron2.utils.events import (
    EventStorage,
    EventWriter,
    JSONWriter,
    TensorboardXWriter,
    get_event_storage,
)

from mask2former.engine.checkpoint import write_atomically

logger = logging.getLogger(__name__)

METRICS_FILE = "metrics.json"
CONSOLE_PERIOD = 20  # iterations, as detectron2
MAX_LINES = 1000  # of metrics.json, below which it has a line for each iteration


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


def build_writers(output_dir: str, start_iter: int, max_iter: int) -> list[EventWriter]:
    """Writers to metrics.json and TensorBoard, for a run that goes on at `start_iter`."""
    path = os.path.join(output_dir, METRICS_FILE)
    keep_lines_before(path, start_iter)
    period = write_period(max_iter)
    return [
        JSONWriter(path, window_size=period),
        TensorboardXWriter(output_dir, window_size=period, purge_step=start_iter or None),
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
