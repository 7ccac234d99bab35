"""DeepLab's polynomial learning rate."""

from torch.optim import Optimizer

from detectron2.solver.lr_scheduler import WarmupLR


class WarmupPolyLR(WarmupLR):
    """(1 - iteration / max_iters) ** power, times the warm-up.

    After the warm-up it never falls below `constant_ending` times the initial learning rate.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_iters: int,
        warmup_factor: float = 0.001,
        warmup_iters: int = 1000,
        warmup_method: str = "linear",
        last_epoch: int = -1,
        power: float = 0.9,
        constant_ending: float = 0.0,
    ):
        self.max_iters = max_iters
        self.power = power
        self.constant_ending = constant_ending
        super().__init__(optimizer, warmup_factor, warmup_iters, warmup_method, last_epoch)

    def decay(self) -> float:
        factor = (1 - self.last_epoch / self.max_iters) ** self.power
        return factor if self.warmup() < 1 else max(factor, self.constant_ending)
