"""Losses, rates and scores of a run, from whatever it has left of them.

What a line is shows in the line itself, so one file may hold several kinds: a console's record of a
model-zoo run has those of its framework and those of its own between them.

Iterations count from 0, as in metrics.json and in the model-zoo line; where a log counts from 1
(`[  50/90000]`, `"step": 50`, `iter: 50/90000`), one is taken off.
"""

import json
import math
import os
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

METRICS_FILE = "metrics.json"
LOG_FILE = "log.txt"

# What a series is called, whichever log it is from. Parts of the loss keep the log's own names.
TOTAL_LOSS = "total_loss"
LEARNING_RATE = "lr"
SECONDS = "seconds"  # of an iteration
IMAGES_PER_SECOND = "images_per_second"  # over all processes


class Series(NamedTuple):
    """A number over iterations."""

    iterations: np.ndarray  # (N,) int, increasing
    values: np.ndarray  # (N,) float


Run = Mapping[str, Series]  # by the names above, the parts' names, and those of SCORES

# Of the total, the first that a log has: a model-zoo line tells one iteration's, others a mean or a
# median over several.
_TOTALS = ("train.loss", "total_loss", "loss")
_OTHERS = {
    LEARNING_RATE: ("lr", "train.lr"),
    SECONDS: ("time",),
    IMAGES_PER_SECOND: ("train.ips",),
}
# The main score of each task, under its names in evaluations, and what makes it percent.
SCORES = {
    "mIoU": (r"(?:(.+)/)?sem_seg/m?IoU|mIoU", 1),
    "PQ": (r"(?:(.+)/)?panoptic_seg/PQ|coco_panoptic/PQ", 1),
    "AP": (r"(?:(.+)/)?segm/AP", 1),
    "mask mAP": (r"coco/segm_mAP", 100),
}
_PART = re.compile(r"(?:\w+\.)*loss_\w+")
_LAYER = re.compile(r"_\d+$|\bd\d+\.")  # of loss_ce_3 and decode.d3.loss_cls
_NUMBER = r"[-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|nan|inf)"
_FIELD = re.compile(rf"([\w./]+) ?: ?({_NUMBER})(?=[\s,]|$)", re.IGNORECASE)


def read_run(path: str) -> Run:
    """The series of a run.

    Args:
        path: OUTPUT_DIR, of which metrics.json is read; or a metrics.json, a log.txt, or what was
            on the console; of mmengine or mmcv a text log or scalars.json; or any text with
            model-zoo lines.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: there is no loss in it.
    """
    file = os.path.join(path, METRICS_FILE) if os.path.isdir(path) else path
    if not os.path.isfile(file):
        raise FileNotFoundError(
            f"{file}: no such file; name the OUTPUT_DIR of a run, its metrics.json, or a log"
        )
    log = _Log(file)
    if file != path and os.path.isfile(os.path.join(path, LOG_FILE)):
        # An iteration that had no loss leaves no trace in a metrics.json of medians.
        log.not_finite |= _Log(os.path.join(path, LOG_FILE)).not_finite
    run = log.series()
    if TOTAL_LOSS not in run:
        raise ValueError(
            f"{file}: no losses found; what is read is a metrics.json or log.txt of detectron2, a "
            "log or scalars.json of mmengine or mmcv, and lines that begin with TCAPPDLL"
        )
    return run


class _Log:
    """The records of a file, in the order of its lines."""

    def __init__(self, path: str) -> None:
        self.records: dict[int, dict[str, float]] = {}
        self.not_finite: set[int] = set()
        self.last = -1  # iteration
        self._epoch = 0
        self._epoch_starts: dict[int, int] = {}
        with open(path, encoding="utf-8", errors="replace") as file:
            # Several processes that share a console write into each other's lines.
            lines = re.split(r"[\r\n]+|(?=TCAPPDLL )", file.read())
        for line in lines:
            for pattern, read in _KINDS:
                match = pattern.search(line)
                if match:
                    read(self, *match.groups())
                    break

    def put(self, iteration: int, values: Mapping[str, float]) -> None:
        """Add what a line says; one that goes back is of a resumed run, which does it again."""
        if iteration < self.last:
            self.go_on_from(iteration)
        self.last = iteration
        self.records.setdefault(iteration, {}).update(values)

    def put_scores(self, values: Mapping[str, float]) -> None:
        """Add an evaluation, which logs number in ways of their own, to the iteration before it."""
        self.records.setdefault(max(self.last, 0), {}).update(values)

    def go_on_from(self, iteration: int) -> None:
        """Forget this iteration and all after it, which a resumed run does again."""
        self.records = {i: x for i, x in self.records.items() if i < iteration}
        self.not_finite = {i for i in self.not_finite if i < iteration}
        self.last = iteration - 1

    def number(self, epoch: int, iteration: int) -> int:
        """The iteration's number in the run; some logs count anew in each epoch."""
        if epoch not in self._epoch_starts:
            start = self._epoch_starts.get(self._epoch, 0)
            self._epoch_starts[epoch] = start if start + iteration > self.last else self.last + 1
        self._epoch = epoch
        return self._epoch_starts[epoch] + iteration

    def read_json(self, line: str) -> None:
        """A line of metrics.json, of scalars.json, or of mmcv's .log.json."""
        found = _json(line)
        values = {k: float(v) for k, v in found.items() if isinstance(v, (int, float))}
        if "iteration" in values:
            iteration = int(values["iteration"])
            self.put(iteration, values)
            if "data_time" in values and "total_loss" not in values:
                self.not_finite.add(iteration)  # what is not finite is not put into metrics.json
        elif "loss" in values and "step" in values:
            self.put(int(values["step"]) - 1, values)
        elif "loss" in values and "iter" in values:
            self.put(self.number(int(values.get("epoch", 0)), int(values["iter"]) - 1), values)
        else:
            self.put_scores(values)

    def read_zoo(self, epoch: str, iteration: str, rest: str) -> None:
        """A model-zoo line; of several processes, the first one's."""
        values = _fields(rest)
        if values.get("rank", 0) == 0:
            self.put(self.number(int(epoch), int(iteration)), values)

    def read_zoo_json(self, line: str) -> None:
        """A model-zoo line as its logger writes it into files: the data is a dict in a string."""
        found = _json(line)
        if found.get("type") == "LOG" and len(found["step"]) == 2:
            epoch, iteration = found["step"]
            self.read_zoo(epoch, iteration, re.sub(r"[{}'\"]", "", str(found["data"])))

    def read_iteration(self, iteration: str, rest: str) -> None:
        self.put(int(iteration) - 1, _fields(rest))

    def read_epoch(self, epoch: str, iteration: str, length: str, rest: str) -> None:
        self.put((int(epoch) - 1) * int(length) + int(iteration) - 1, _fields(rest))

    def read_validation(self, rest: str) -> None:
        times = ("time", "data_time")  # of the evaluation
        self.put_scores({k: v for k, v in _fields(rest).items() if k not in times})

    def read_console(self, iteration: str, max_iter: str | None, rest: str) -> None:
        # detectron2's own console counts from 0, and does not say how far.
        self.put(int(iteration) - (max_iter is not None), _fields(rest))

    def read_start(self, iteration: str) -> None:
        self.go_on_from(int(iteration))

    def read_warning(self, iteration: str) -> None:
        self.put(int(iteration), {})
        self.not_finite.add(int(iteration))

    def series(self) -> Run:
        names = dict.fromkeys(name for record in self.records.values() for name in record)
        total = next((name for name in _TOTALS if name in names), None)
        run = {}
        if total or self.not_finite:
            losses = {i: x[total] for i, x in self.records.items() if total in x}
            lost = dict.fromkeys(self.not_finite - losses.keys(), math.nan)
            run[TOTAL_LOSS] = _series(losses | lost)
        parts = [name for name in names if _PART.fullmatch(name)]
        for part in sorted({_LAYER.sub("", name) for name in parts}):
            run[part] = self._sum({name for name in parts if _LAYER.sub("", name) == part})
        for kind, sources in _OTHERS.items():
            for name in sources:
                if name in names:
                    run[kind] = self._sum({name})
        for name in names:
            for score, (pattern, factor) in SCORES.items():
                match = re.fullmatch(pattern, name)
                if match:
                    dataset = match.group(1) if match.lastindex else None
                    found = self._sum({name})
                    label = f"{score} {dataset}" if dataset else score
                    run[label] = found._replace(values=found.values * factor)
        return run

    def _sum(self, names: set[str]) -> Series:
        return _series(
            {
                i: sum(record[name] for name in names & record.keys())
                for i, record in self.records.items()
                if names & record.keys()
            }
        )


def _series(values: Mapping[int, float]) -> Series:
    iterations = sorted(values)
    return Series(np.array(iterations, int), np.array([values[i] for i in iterations], float))


def _json(line: str) -> dict:
    try:
        return json.loads(line)
    except ValueError:  # cut off, or no JSON at all
        return {}


def _fields(text: str) -> dict[str, float]:
    return {name: float(value) for name, value in _FIELD.findall(text)}


# What a line of each kind looks like, and who reads it.
_KINDS: tuple[tuple[re.Pattern, Callable[..., None]], ...] = tuple(
    (re.compile(pattern), read)
    for pattern, read in (
        (r"^\s*(\{.*\})\s*$", _Log.read_json),
        (r"TCAPPDLL (\{.*\})", _Log.read_zoo_json),
        (r"TCAPPDLL .*?Epoch: *(\d+) +Iteration: *(\d+) (.*)", _Log.read_zoo),
        (r"(?:Iter|Epoch)\(val\)(.*)", _Log.read_validation),
        (r"Iter(?:\(train\))? +\[ *(\d+)/\d+\](.*)", _Log.read_iteration),
        (r"Epoch(?:\(train\))? +\[(\d+)\]\[ *(\d+)/(\d+)\](.*)", _Log.read_epoch),
        (r"\biter: (\d+)(/\d+)? (.*)", _Log.read_console),
        (r"(?:SEED \d+,|Starting training) from iteration (\d+)\b", _Log.read_start),
        (r"\biteration (\d+): .*loss.* not finite on ", _Log.read_warning),
    )
)
