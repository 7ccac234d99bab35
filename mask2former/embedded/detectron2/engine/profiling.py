"""Hooks that look into a run: torch's profiler and the device's memory."""

import logging
import os
from collections.abc import Callable, Iterable

import torch

from detectron2.engine.train_loop import HookBase, TrainerBase
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager

logger = logging.getLogger(__name__)

_MEGABYTE = 1024**2


class TorchProfiler(HookBase):
    """Profile single iterations; each leaves one trace.

    Args:
        enable_predicate: takes the trainer, says whether to profile the coming iteration.
        output_dir: gets log/profiler-tensorboard-iter<N>/, or profiler-trace-iter<N>.json.
        activities: as torch.profiler.profile has them; None for all there are.
        save_tensorboard: which of the two to write.
    """

    def __init__(
        self,
        enable_predicate: Callable[[TrainerBase], bool],
        output_dir: str,
        *,
        activities: Iterable | None = None,
        save_tensorboard: bool = True,
    ) -> None:
        self._enable_predicate = enable_predicate
        self._output_dir = output_dir
        self._activities = activities
        self._save_tensorboard = save_tensorboard
        self._profiler: torch.profiler.profile | None = None

    def before_step(self) -> None:
        if not self._enable_predicate(self.trainer):
            return
        self._profiler = torch.profiler.profile(
            activities=self._activities,
            on_trace_ready=self._tensorboard_writer() if self._save_tensorboard else None,
            record_shapes=True,
            profile_memory=True,
            with_stack=True,
            with_flops=True,
        )
        self._profiler.start()

    def _tensorboard_writer(self) -> Callable:
        name = f"profiler-tensorboard-iter{self.trainer.iter}"
        folder = os.path.join(self._output_dir, "log", name)
        return torch.profiler.tensorboard_trace_handler(folder, f"worker{comm.get_rank()}")

    def after_step(self) -> None:
        profiler, self._profiler = self._profiler, None
        if profiler is None:
            return
        profiler.stop()
        if not self._save_tensorboard:
            PathManager.mkdirs(self._output_dir)
            name = f"profiler-trace-iter{self.trainer.iter}.json"
            profiler.export_chrome_trace(os.path.join(self._output_dir, name))


class TorchMemoryStats(HookBase):
    """Log the memory that torch holds on the device of `trainer.model`; nothing on a CPU.

    Args:
        period: in iterations; the last one is logged as well.
        max_runs: after so many lines comes torch's own summary, and then no more.
    """

    def __init__(self, period: int = 20, max_runs: int = 10) -> None:
        self._period = period
        self._max_runs = max_runs
        self._runs = 0

    def after_step(self) -> None:
        next_iter = self.trainer.iter + 1
        is_due = next_iter % self._period == 0 or next_iter == self.trainer.max_iter
        if self._runs >= self._max_runs or not is_due:
            return
        memory = getattr(torch, next(self.trainer.model.parameters()).device.type)
        if not hasattr(memory, "max_memory_reserved"):
            return
        names = ("max_memory_reserved", "memory_reserved", "max_memory_allocated")
        names += ("memory_allocated",)
        sizes = (f"{n}: {getattr(memory, n)() / _MEGABYTE:.0f}MB" for n in names)
        logger.info("iter: %d  %s", self.trainer.iter, "  ".join(sizes))
        self._runs += 1
        if self._runs == self._max_runs and hasattr(memory, "memory_summary"):
            logger.info("\n%s", memory.memory_summary())
        memory.reset_peak_memory_stats()
