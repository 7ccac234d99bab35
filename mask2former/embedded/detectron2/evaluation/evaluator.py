"""The loop of an evaluation: run the model, hand what it returns to evaluators, tell the time."""

from __future__ import annotations

import contextlib
import datetime
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableSequence
from typing import Any

import torch
from torch import nn

from detectron2.utils.comm import get_world_size, is_main_process
from detectron2.utils.logger import log_every_n_seconds

_NUM_WARMUP = 5  # batches that the reported speed leaves out


class DatasetEvaluator:
    """What an evaluation does with a dataset: `reset`, `process` a batch at a time, `evaluate`."""

    def reset(self) -> None:
        """Forget what was processed."""

    def process(self, inputs: list[dict], outputs: list) -> None:
        """Take in a batch: what the model was given, and what it returned, image by image."""

    def evaluate(self) -> dict[str, Any] | None:
        """The results, {task: {metric: number}}; None where another process has them."""


class DatasetEvaluators(DatasetEvaluator):
    """Several evaluators as one, whose results have all their tasks."""

    def __init__(self, evaluators: list[DatasetEvaluator]):
        super().__init__()
        self._evaluators = evaluators

    def reset(self) -> None:
        for evaluator in self._evaluators:
            evaluator.reset()

    def process(self, inputs: list[dict], outputs: list) -> None:
        for evaluator in self._evaluators:
            evaluator.process(inputs, outputs)

    def evaluate(self) -> dict[str, Any]:
        """
        Raises:
            AssertionError: two evaluators report the same task.
        """
        results: dict[str, Any] = OrderedDict()
        for evaluator in self._evaluators:
            result = evaluator.evaluate()
            if result is None or not is_main_process():
                continue
            twice = results.keys() & result.keys()
            assert not twice, f"several evaluators report {sorted(twice)}"
            results.update(result)
        return results


class _Stopwatch:
    """Seconds that the stages of an iteration took, summed since `restart`."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._start = self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] += now - self._last
        self._last = now

    def total(self) -> float:
        return time.perf_counter() - self._start


def inference_on_dataset(
    model: Callable[[list[dict]], list],
    data_loader: Iterable[list[dict]],
    evaluator: DatasetEvaluator | list[DatasetEvaluator] | None,
    callbacks: Mapping[str, Callable[[], None]] | None = None,
) -> dict[str, Any]:
    """Run `model` over `data_loader` without gradients and return the evaluator's results.

    Args:
        model: called with each batch; a Module is put into eval mode meanwhile.
        data_loader: batches, with a length.
        evaluator: one, several, or None to measure the speed only.
        callbacks: functions by the names "on_start", "before_inference", "after_inference" and
            "on_end", called at these moments.

    Returns:
        The results of this process; an empty dict where another one has them.
    """
    logger = logging.getLogger(__name__)
    total = len(data_loader)
    logger.info(f"Start inference on {total} batches")
    if evaluator is None:
        evaluator = []
    if isinstance(evaluator, MutableSequence):
        evaluator = DatasetEvaluators(evaluator)
    evaluator.reset()

    def call(name: str) -> None:
        function = (callbacks or {}).get(name)
        if function is not None:
            function()

    synchronize = _device_synchronizer(model)
    num_warmup = max(min(_NUM_WARMUP, total - 1), 0)
    watch = _Stopwatch()
    with contextlib.ExitStack() as stack:
        if isinstance(model, nn.Module):
            stack.enter_context(inference_context(model))
        stack.enter_context(torch.no_grad())
        call("on_start")
        for index, inputs in enumerate(data_loader):
            watch.lap("Dataloading")
            if index == num_warmup:
                watch.restart()
            call("before_inference")
            outputs = model(inputs)
            call("after_inference")
            synchronize()
            watch.lap("Inference")
            evaluator.process(inputs, outputs)
            watch.lap("Eval")
            num_timed = index + 1 - (num_warmup if index >= num_warmup else 0)
            if index >= 2 * num_warmup or watch.seconds["Inference"] / num_timed > 5:
                message = _progress(index + 1, total, num_timed, watch)
                log_every_n_seconds(logging.INFO, message, n=5)
        call("on_end")

    num_timed = max(total - num_warmup, 1)
    devices = f"on {get_world_size()} devices"
    spent = {"": watch.total(), " pure compute": watch.seconds["Inference"]}
    for kind, seconds in spent.items():
        elapsed = datetime.timedelta(seconds=int(seconds))
        speed = f"{seconds / num_timed:.6f} s / iter per device, {devices}"
        logger.info(f"Total inference{kind} time: {elapsed} ({speed})")

    results = evaluator.evaluate()
    return {} if results is None else results


def _progress(done: int, total: int, num_timed: int, watch: _Stopwatch) -> str:
    per_iteration = watch.total() / num_timed
    stages = [
        f"{name}: {seconds / num_timed:.4f} s/iter" for name, seconds in watch.seconds.items()
    ]
    eta = datetime.timedelta(seconds=int(per_iteration * (total - done)))
    stages += [f"Total: {per_iteration:.4f} s/iter", f"ETA={eta}"]
    return f"Inference done {done}/{total}. " + ". ".join(stages)


def _device_synchronizer(model: Any) -> Callable[[], None]:
    """A function that waits for the model's device: accelerators return before they are done."""
    parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    backend = getattr(torch, parameter.device.type, None) if parameter is not None else None
    return getattr(backend, "synchronize", lambda: None)


@contextlib.contextmanager
def inference_context(model: nn.Module) -> Iterator[None]:
    """Eval mode inside; the mode that the model had, afterwards."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
