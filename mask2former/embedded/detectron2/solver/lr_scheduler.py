"""Learning rates as functions of the iteration."""

import math
from bisect import bisect_right
from collections.abc import Sequence

from fvcore.common.param_scheduler import (
    CompositeParamScheduler,
    ConstantParamScheduler,
    LinearParamScheduler,
    ParamScheduler,
)
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class WarmupParamScheduler(CompositeParamScheduler):
    """`scheduler`, with the beginning replaced by a warm-up.

    Args:
        scheduler: what comes after the warm-up.
        warmup_factor: the warm-up starts at this fraction of the scheduler's first value.
        warmup_length: fraction of the whole training that the warm-up takes, in [0, 1].
        warmup_method: "linear" rises to where the scheduler takes over, "constant" stays.
        rescale_interval: squeeze the whole scheduler into the time after the warm-up, instead of
            covering its beginning.
    """

    def __init__(
        self,
        scheduler: ParamScheduler,
        warmup_factor: float,
        warmup_length: float,
        warmup_method: str = "linear",
        rescale_interval: bool = False,
    ):
        start = warmup_factor * scheduler(0.0)
        if warmup_method == "linear":
            takes_over_at = 0.0 if rescale_interval else warmup_length
            warmup = LinearParamScheduler(start, scheduler(takes_over_at))
        elif warmup_method == "constant":
            warmup = ConstantParamScheduler(start)
        else:
            raise ValueError(f"warmup method {warmup_method!r}; set it to linear or constant")
        super().__init__(
            [warmup, scheduler],
            interval_scaling=["rescaled", "rescaled" if rescale_interval else "fixed"],
            lengths=[warmup_length, 1 - warmup_length],
        )


class LRMultiplier(LRScheduler):
    """Each group's initial learning rate times `multiplier(iteration / max_iter)`.

    Its state is small: the iteration and the initial learning rates; the multiplier is config.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        multiplier: ParamScheduler,
        max_iter: int,
        last_iter: int = -1,
    ):
        if not isinstance(multiplier, ParamScheduler):
            raise ValueError(f"LRMultiplier takes a fvcore ParamScheduler, not {multiplier!r}")
        self._multiplier = multiplier
        self._max_iter = max_iter
        super().__init__(optimizer, last_epoch=last_iter)

    def state_dict(self) -> dict:
        return {"base_lrs": self.base_lrs, "last_epoch": self.last_epoch}

    def get_lr(self) -> list[float]:
        multiplier = self._multiplier(self.last_epoch / self._max_iter)
        return [base_lr * multiplier for base_lr in self.base_lrs]


class WarmupLR(LRScheduler):
    """Base of the older schedulers: each initial learning rate times warm-up times `decay()`.

    A subclass sets its own attributes, then calls this constructor.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        warmup_factor: float,
        warmup_iters: int,
        warmup_method: str,
        last_epoch: int,
    ):
        self.warmup_factor = warmup_factor
        self.warmup_iters = warmup_iters
        self.warmup_method = warmup_method
        super().__init__(optimizer, last_epoch)

    def warmup(self) -> float:
        """Factor in [warmup_factor, 1] at this iteration."""
        if self.last_epoch >= self.warmup_iters:
            return 1.0
        if self.warmup_method == "constant":
            return self.warmup_factor
        if self.warmup_method == "linear":
            progress = self.last_epoch / self.warmup_iters
            return self.warmup_factor * (1 - progress) + progress
        raise ValueError(f"warmup method {self.warmup_method!r}; set it to linear or constant")

    def decay(self) -> float:
        """Factor in [0, 1] at this iteration, warm-up apart."""
        raise NotImplementedError

    def get_lr(self) -> list[float]:
        factor = self.warmup() * self.decay()
        return [base_lr * factor for base_lr in self.base_lrs]


class WarmupMultiStepLR(WarmupLR):
    """Times `gamma` at each milestone (in iterations)."""

    def __init__(
        self,
        optimizer: Optimizer,
        milestones: Sequence[int],
        gamma: float = 0.1,
        warmup_factor: float = 0.001,
        warmup_iters: int = 1000,
        warmup_method: str = "linear",
        last_epoch: int = -1,
    ):
        if list(milestones) != sorted(milestones):
            raise ValueError(f"milestones {list(milestones)} do not increase; sort them")
        self.milestones = milestones
        self.gamma = gamma
        super().__init__(optimizer, warmup_factor, warmup_iters, warmup_method, last_epoch)

    def decay(self) -> float:
        return self.gamma ** bisect_right(self.milestones, self.last_epoch)


class WarmupCosineLR(WarmupLR):
    """Half a cosine from 1 to 0 over `max_iters` (Loshchilov and Hutter 2017)."""

    def __init__(
        self,
        optimizer: Optimizer,
        max_iters: int,
        warmup_factor: float = 0.001,
        warmup_iters: int = 1000,
        warmup_method: str = "linear",
        last_epoch: int = -1,
    ):
        self.max_iters = max_iters
        super().__init__(optimizer, warmup_factor, warmup_iters, warmup_method, last_epoch)

    def decay(self) -> float:
        return 0.5 * (1 + math.cos(math.pi * self.last_epoch / self.max_iters))
