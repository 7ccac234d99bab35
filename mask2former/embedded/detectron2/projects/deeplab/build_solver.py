"""detectron2's learning-rate schedules and DeepLab's."""

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from detectron2.config import CfgNode
from detectron2.solver import build_lr_scheduler as build_d2_lr_scheduler

from .lr_scheduler import WarmupPolyLR


def build_lr_scheduler(cfg: CfgNode, optimizer: Optimizer) -> LRScheduler:
    """The schedule that SOLVER.LR_SCHEDULER_NAME names; "WarmupPolyLR" is one of them."""
    node = cfg.SOLVER
    if node.LR_SCHEDULER_NAME != "WarmupPolyLR":
        return build_d2_lr_scheduler(cfg, optimizer)
    return WarmupPolyLR(
        optimizer,
        node.MAX_ITER,
        warmup_factor=node.WARMUP_FACTOR,
        warmup_iters=node.WARMUP_ITERS,
        warmup_method=node.WARMUP_METHOD,
        power=node.POLY_LR_POWER,
        constant_ending=node.POLY_LR_CONSTANT_ENDING,
    )
