"""SOLVER.AUTO_SCALE: a schedule that was meant for another number of images an iteration."""

import logging

from detectron2.config import CfgNode

logger = logging.getLogger(__name__)


def auto_scale(cfg: CfgNode) -> None:
    """Scale rate and schedule from REFERENCE_IMS_PER_BATCH to IMS_PER_BATCH, if AUTO_SCALE is on.

    With k times the images BASE_LR is k times as large, and what counts iterations k times as
    small (Goyal et al. 2017), as in detectron2's `auto_scale_workers`. Each change is logged.
    Afterwards the reference is the actual number, so that the saved config is not scaled again.

    Raises:
        ValueError: there is no positive reference, or REFERENCE_WORLD_SIZE would scale as well.
    """
    solver = cfg.SOLVER
    if not solver.AUTO_SCALE:
        return
    if solver.REFERENCE_WORLD_SIZE:
        raise ValueError(
            f"SOLVER.AUTO_SCALE and SOLVER.REFERENCE_WORLD_SIZE={solver.REFERENCE_WORLD_SIZE} "
            "would both scale the schedule; set the one to False or the other to 0"
        )
    if solver.REFERENCE_IMS_PER_BATCH < 1:
        raise ValueError(
            f"SOLVER.REFERENCE_IMS_PER_BATCH={solver.REFERENCE_IMS_PER_BATCH}; "
            "set it to the number of images that the schedule is meant for"
        )
    factor = solver.IMS_PER_BATCH / solver.REFERENCE_IMS_PER_BATCH
    if factor == 1:
        return
    logger.info(
        "AUTO_SCALE from %d to %d images an iteration:",
        solver.REFERENCE_IMS_PER_BATCH,
        solver.IMS_PER_BATCH,
    )
    _change(solver, "SOLVER", "BASE_LR", solver.BASE_LR * factor)
    for key in ("MAX_ITER", "WARMUP_ITERS", "CHECKPOINT_PERIOD"):
        _change(solver, "SOLVER", key, _fewer(solver[key], factor))
    _change(solver, "SOLVER", "STEPS", tuple(_fewer(step, factor) for step in solver.STEPS))
    _change(cfg.TEST, "TEST", "EVAL_PERIOD", _fewer(cfg.TEST.EVAL_PERIOD, factor))
    solver.REFERENCE_IMS_PER_BATCH = solver.IMS_PER_BATCH


def _fewer(iterations: int, factor: float) -> int:
    """0 means never, and stays; what is more stays at least 1."""
    return max(1, round(iterations / factor)) if iterations > 0 else iterations


def _change(node: CfgNode, group: str, key: str, value: float | int | tuple[int, ...]) -> None:
    logger.info("  %s.%s %s -> %s", group, key, node[key], value)
    node[key] = value
