"""The hooks that a training needs: time, learning rate, checkpoints, evaluation, logs, profiles."""

import datetime
import logging
import math
import operator
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import torch
from fvcore.common.checkpoint import Checkpointer
from fvcore.common.checkpoint import PeriodicCheckpointer as _PeriodicCheckpointer
from fvcore.common.param_scheduler import ParamScheduler
from fvcore.nn.precise_bn import get_bn_modules, update_bn_stats
from torch import nn

from detectron2.engine.profiling import TorchMemoryStats, TorchProfiler
from detectron2.engine.train_loop import HookBase, TrainerBase
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.solver import LRMultiplier
from detectron2.utils import comm
from detectron2.utils.events import EventStorage, EventWriter

__all__ = [
    "BestCheckpointer",
    "CallbackHook",
    "EvalHook",
    "IterationTimer",
    "LRScheduler",
    "PeriodicCheckpointer",
    "PeriodicWriter",
    "PreciseBN",
    "TorchMemoryStats",
    "TorchProfiler",
]

logger = logging.getLogger(__name__)


class CallbackHook(HookBase):
    """A hook made of functions; each takes the trainer."""

    def __init__(
        self,
        *,
        before_train: Callable | None = None,
        after_train: Callable | None = None,
        before_step: Callable | None = None,
        after_step: Callable | None = None,
    ) -> None:
        self._functions = {
            "before_train": before_train,
            "after_train": after_train,
            "before_step": before_step,
            "after_step": after_step,
        }

    def _call(self, name: str) -> None:
        function = self._functions.get(name)
        if function is not None:
            function(self.trainer)

    def before_train(self) -> None:
        self._call("before_train")

    def after_train(self) -> None:
        self._call("after_train")
        self._functions.clear()  # closures may hold the trainer

    def before_step(self) -> None:
        self._call("before_step")

    def after_step(self) -> None:
        self._call("after_step")


class IterationTimer(HookBase):
    """Put each iteration's seconds into the storage as "time", and log a summary at the end.

    It stands first among the hooks: what later hooks do is not part of an iteration.
    """

    def __init__(self, warmup_iter: int = 3) -> None:
        """The first `warmup_iter` - 1 iterations are not timed."""
        self._warmup_iter = warmup_iter
        self._restart()

    def _restart(self) -> None:
        self._start = self._step_start = time.perf_counter()
        self._step_seconds = 0.0

    def before_train(self) -> None:
        self._restart()

    def before_step(self) -> None:
        self._step_start = time.perf_counter()

    def after_step(self) -> None:
        num_done = self.trainer.storage.iter - self.trainer.start_iter + 1
        if num_done < self._warmup_iter:
            self._restart()
            return
        seconds = time.perf_counter() - self._step_start
        self._step_seconds += seconds
        self.trainer.storage.put_scalars(time=seconds)

    def after_train(self) -> None:
        total = time.perf_counter() - self._start
        num_iter = self.trainer.storage.iter + 1 - self.trainer.start_iter - self._warmup_iter
        if num_iter > 0 and self._step_seconds > 0:
            logger.info(
                "Overall training speed: %d iterations in %s (%.4f s / it)",
                num_iter,
                _clock(self._step_seconds),
                self._step_seconds / num_iter,
            )
        hooks = total - self._step_seconds
        logger.info("Total training time: %s (%s on hooks)", _clock(total), _clock(hooks))


def _clock(seconds: float) -> str:
    return str(datetime.timedelta(seconds=int(seconds)))


class PeriodicWriter(HookBase):
    """Call `write` of each writer every `period` iterations and at the end."""

    def __init__(self, writers: Sequence[EventWriter], period: int = 20) -> None:
        for writer in writers:
            if not isinstance(writer, EventWriter):
                raise TypeError(f"{writer!r} is no writer; derive its class from EventWriter")
        self._writers = writers
        self._period = period

    def after_step(self) -> None:
        next_iter = self.trainer.iter + 1
        if next_iter % self._period == 0 or next_iter == self.trainer.max_iter:
            for writer in self._writers:
                writer.write()

    def after_train(self) -> None:
        for writer in self._writers:
            writer.write()  # what the other hooks' after_train left, e.g. the last evaluation
            writer.close()


class PeriodicCheckpointer(_PeriodicCheckpointer, HookBase):
    """Save every `period` iterations, and "{file_prefix}_final" after the last one."""

    def before_train(self) -> None:
        self.max_iter = self.trainer.max_iter

    def after_step(self) -> None:
        self.step(self.trainer.iter)


class BestCheckpointer(HookBase):
    """Save a checkpoint whenever a metric of the evaluation has a new best value.

    It stands after the EvalHook that puts the metric into the storage.
    """

    def __init__(
        self,
        eval_period: int,
        checkpointer: Checkpointer,
        val_metric: str,
        mode: str = "max",
        file_prefix: str = "model_best",
    ) -> None:
        """
        Args:
            eval_period: the EvalHook's.
            checkpointer: saves under the name `file_prefix`.
            val_metric: the metric's name in the storage, e.g. "sem_seg/mIoU".
            mode: whether the "max" or the "min" is best.
        """
        assert mode in ("max", "min"), f"mode={mode!r}; it is max or min"
        self._period = eval_period
        self._checkpointer = checkpointer
        self._val_metric = val_metric
        self._is_better = operator.gt if mode == "max" else operator.lt
        self._file_prefix = file_prefix
        self.best_metric: float | None = None
        self.best_iter: int | None = None

    def _check(self) -> None:
        latest = self.trainer.storage.latest().get(self._val_metric)
        if latest is None:
            logger.warning("No metric %s to choose the best model by", self._val_metric)
            return
        value, iteration = latest
        if self.best_metric is not None and not self._is_better(value, self.best_metric):
            logger.info(
                "%s %.5f is no better than %.5f of iteration %d",
                *(self._val_metric, value, self.best_metric, self.best_iter),
            )
        elif math.isfinite(value):
            self._checkpointer.save(self._file_prefix, iteration=iteration)
            self.best_metric, self.best_iter = value, iteration
            logger.info("Best %s so far: %.5f, saved", self._val_metric, value)

    def after_step(self) -> None:
        if _is_periodic_eval(self.trainer, self._period):
            self._check()

    def after_train(self) -> None:
        if _is_finished(self.trainer):
            self._check()


def _is_periodic_eval(trainer: TrainerBase, period: int) -> bool:
    """Whether to evaluate after this step; after the last one `after_train` does."""
    next_iter = trainer.iter + 1
    return period > 0 and next_iter % period == 0 and next_iter != trainer.max_iter


def _is_finished(trainer: TrainerBase) -> bool:
    """Whether `after_train` follows the last iteration rather than a failure before it."""
    return trainer.iter + 1 >= trainer.max_iter


class LRScheduler(HookBase):
    """Step the learning rate after each iteration, and put the one just used into the storage."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer | None = None,
        scheduler: torch.optim.lr_scheduler.LRScheduler | ParamScheduler | None = None,
    ) -> None:
        """A ParamScheduler gives multipliers of the base rates; None takes the trainer's own."""
        self._optimizer = optimizer
        self._scheduler = scheduler

    @property
    def scheduler(self) -> torch.optim.lr_scheduler.LRScheduler | ParamScheduler:
        return self._scheduler or self.trainer.scheduler

    def before_train(self) -> None:
        trainer = self.trainer
        if self._optimizer is None:
            self._optimizer = trainer.optimizer
        multiplier = self.scheduler
        if isinstance(multiplier, ParamScheduler):
            last_iter = trainer.iter - 1
            self._scheduler = LRMultiplier(self._optimizer, multiplier, trainer.max_iter, last_iter)
        self._shown_group = self.get_best_param_group_id(self._optimizer)

    @staticmethod
    def get_best_param_group_id(optimizer: torch.optim.Optimizer) -> int:
        """The group whose rate is shown: the first of the largest ones.

        If each group has one parameter: the first that has the most common rate.
        """
        sizes = [len(group["params"]) for group in optimizer.param_groups]
        if max(sizes) > 1:
            return sizes.index(max(sizes))
        rates = [group["lr"] for group in optimizer.param_groups]
        return rates.index(Counter(rates).most_common(1)[0][0])

    def after_step(self) -> None:
        shown = self._optimizer.param_groups[self._shown_group]
        self.trainer.storage.put_scalar("lr", shown["lr"], smoothing_hint=False)
        self.scheduler.step()

    def _has_state(self) -> bool:
        return isinstance(self.scheduler, torch.optim.lr_scheduler.LRScheduler)

    def state_dict(self) -> dict:
        return self.scheduler.state_dict() if self._has_state() else {}

    def load_state_dict(self, state_dict: dict) -> None:
        if self._has_state():
            logger.info("The learning rate goes on where the checkpoint left it")
            self.scheduler.load_state_dict(state_dict)


class EvalHook(HookBase):
    """Evaluate every `eval_period` iterations (0: never in between) and after the last one."""

    def __init__(
        self, eval_period: int, eval_function: Callable[[], dict], eval_after_train: bool = True
    ) -> None:
        """
        Args:
            eval_period: in iterations.
            eval_function: returns metrics in dicts that may be nested. Every rank must have the
                hook, since all wait for each other; it may return None on some.
            eval_after_train: evaluate once more at the end.
        """
        self._period = eval_period
        self._func = eval_function
        self._eval_after_train = eval_after_train

    def _evaluate(self) -> None:
        results = self._func()
        if results:
            assert isinstance(results, dict), f"eval_function returned {results!r}, not a dict"
            metrics = flatten_results_dict(results)
            for name, value in metrics.items():
                try:
                    float(value)
                except (TypeError, ValueError) as error:
                    raise ValueError(
                        f"eval_function returned {name}: {value!r}; metrics are numbers"
                    ) from error
            self.trainer.storage.put_scalars(**metrics, smoothing_hint=False)
        comm.synchronize()  # ranks that were quicker wait, so that the next iteration starts as one

    def after_step(self) -> None:
        if _is_periodic_eval(self.trainer, self._period):
            self._evaluate()

    def after_train(self) -> None:
        if self._eval_after_train and _is_finished(self.trainer):
            self._evaluate()
        self._func = None  # a closure may hold the trainer


class PreciseBN(HookBase):
    """Replace the running statistics of batch norms by true averages over `num_iter` batches.

    It runs every `period` iterations (0: never in between) and after the last one.
    """

    def __init__(self, period: int, model: nn.Module, data_loader: Iterable, num_iter: int) -> None:
        self._enabled = len(get_bn_modules(model)) > 0
        if not self._enabled:
            logger.info("PreciseBN is off: the model has no batch norm in training mode")
        self._period = period
        self._model = model
        self._data_loader = data_loader
        self._data_iter = None
        self._num_iter = num_iter

    def after_step(self) -> None:
        next_iter = self.trainer.iter + 1
        is_last = next_iter == self.trainer.max_iter
        if is_last or (self._period > 0 and next_iter % self._period == 0):
            self.update_stats()

    def update_stats(self) -> None:
        """Take the averages now."""
        if not self._enabled:
            return
        if self._data_iter is None:
            self._data_iter = iter(self._data_loader)
        with EventStorage():  # what the model logs in these forwards is no part of the training
            logger.info("Averaging batch norm statistics over %d batches", self._num_iter)
            update_bn_stats(self._model, self._data_iter, self._num_iter)
