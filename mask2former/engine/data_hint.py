"""Says once that a training waits for its data, and what to change."""

import logging
import math
import os

from detectron2.engine import HookBase
from detectron2.utils import comm

from mask2former.engine.writers import CONSOLE_PERIOD

logger = logging.getLogger(__name__)

SHARE = 0.15  # of an iteration; what is less is not worth a change
NUM_WINDOWS = 3  # one after the other, so that no single hiccup of a disk counts


class DataHint(HookBase):
    """Warns once if `data_time` was much of `time` in some windows of iterations running.

    Of a window the sums are compared, not the medians: workers often deliver in bursts, after
    which several iterations need not wait at all. The first window is left out.
    """

    def __init__(
        self, num_workers: int, device_type: str, num_cores: int, window: int = CONSOLE_PERIOD
    ):
        """
        Args:
            num_workers: of this process.
            device_type: that computes; on a "cpu" the network needs cores as well.
            num_cores: for this process.
            window: iterations.
        """
        self.num_workers = num_workers
        self.device_type = device_type
        self.num_cores = num_cores
        self.window = window
        self.num_slow = 0  # windows running

    def after_step(self) -> None:
        is_window = (self.trainer.iter - self.trainer.start_iter + 1) % self.window == 0
        histories = self.trainer.storage.histories()
        if self.num_slow == NUM_WINDOWS or not is_window or "time" not in histories:
            return
        times = histories["time"]
        if len(times.values()) < self.window:  # an iteration or two are not measured
            return
        seconds, waited = times.avg(self.window), histories["data_time"].avg(self.window)
        self.num_slow = self.num_slow + 1 if waited > SHARE * seconds else 0
        if self.num_slow == NUM_WINDOWS:
            logger.warning(
                "Waiting for data takes %.0f %% of an iteration (%.3g of %.3g s): %s",
                *(100 * waited / seconds, waited, seconds),
                self.advice(waited, seconds),
            )

    def advice(self, waited: float, seconds: float) -> str:
        """What to change when an iteration of so many `seconds` has `waited` so long."""
        network = max(seconds - waited, 1e-9)
        if self.num_workers:
            enough = max(self.num_workers + 1, math.ceil(self.num_workers * seconds / network))
        else:
            enough = max(1, math.ceil(waited / network))
        # One core is this process's own; where there is no other device, so is half of them.
        most = self.num_cores // 2 if self.device_type == "cpu" else self.num_cores - 1
        suggested = min(enough, most)
        if suggested <= self.num_workers:
            return (
                f"DATALOADER.NUM_WORKERS {self.num_workers} leaves no core of {self.num_cores} "
                "unused, so take smaller pictures (prepare them, or lower INPUT.MIN_SIZE_TRAIN), a "
                "faster disk or more cores; `python tools/benchmark.py data` measures the loading"
            )
        found = "" if self.num_workers else ", so that nothing is loaded while the network computes"
        return (
            f"DATALOADER.NUM_WORKERS is {self.num_workers}{found}; set it to {suggested} (there "
            f"are {self.num_cores} cores for this process), and where that does not help, look at "
            "`python tools/benchmark.py data`"
        )


def cores_of_a_process() -> int:
    """How many of this machine's cores there are for each of the run's processes on it."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on every system
    count = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, count // comm.get_local_size())
