"""Optimizer and learning-rate schedule by config."""

import logging
import math
from collections.abc import Callable
from enum import Enum
from typing import Any

import torch
from fvcore.common.param_scheduler import (
    CosineParamScheduler,
    MultiStepParamScheduler,
    ParamScheduler,
)
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from detectron2.config import CfgNode

from .lr_scheduler import LRMultiplier, WarmupParamScheduler

ParamGroups = list[dict[str, Any]]

_NORMS = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,  # NaiveSyncBatchNorm too
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
    nn.GroupNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    nn.LayerNorm,
    nn.LocalResponseNorm,
)


class GradientClipType(Enum):
    """What SOLVER.CLIP_GRADIENTS.CLIP_TYPE may be: a bound on each element or each norm."""

    VALUE = "value"
    NORM = "norm"


def _gradient_clipper(node: CfgNode) -> Callable[[nn.Parameter], Any]:
    try:
        clip_type = GradientClipType(node.CLIP_TYPE)
    except ValueError as error:
        raise ValueError(
            f"SOLVER.CLIP_GRADIENTS.CLIP_TYPE={node.CLIP_TYPE!r}; set it to one of "
            f"{', '.join(kind.value for kind in GradientClipType)}"
        ) from error
    if clip_type is GradientClipType.VALUE:
        return lambda p: nn.utils.clip_grad_value_(p, node.CLIP_VALUE)
    return lambda p: nn.utils.clip_grad_norm_(p, node.CLIP_VALUE, node.NORM_TYPE)


def maybe_add_gradient_clipping(
    cfg: CfgNode, optimizer: type[Optimizer] | Optimizer
) -> type[Optimizer] | Optimizer:
    """Let `step` clip each parameter's gradient first, if SOLVER.CLIP_GRADIENTS.ENABLED.

    Args:
        cfg: the whole config.
        optimizer: a class, for which a subclass comes back, or an object, which is changed.

    Raises:
        ValueError: SOLVER.CLIP_GRADIENTS.CLIP_TYPE is neither "value" nor "norm".
    """
    node = cfg.SOLVER.CLIP_GRADIENTS
    if not node.ENABLED:
        return optimizer
    clip = _gradient_clipper(node.clone())
    base = optimizer if isinstance(optimizer, type) else type(optimizer)

    def step(self: Optimizer, closure: Callable[[], float] | None = None) -> float | None:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    clip(parameter)
        return base.step(self, closure)

    clipped = type(f"{base.__name__}WithGradientClip", (base,), {"step": step})
    if isinstance(optimizer, type):
        return clipped
    optimizer.__class__ = clipped
    return optimizer


def build_optimizer(cfg: CfgNode, model: nn.Module) -> Optimizer:
    """SGD with the SOLVER keys: groups for norms and biases, optional clipping."""
    node = cfg.SOLVER
    groups = get_default_optimizer_params(
        model,
        base_lr=node.BASE_LR,
        weight_decay_norm=node.WEIGHT_DECAY_NORM,
        bias_lr_factor=node.BIAS_LR_FACTOR,
        weight_decay_bias=node.WEIGHT_DECAY_BIAS,
    )
    return maybe_add_gradient_clipping(cfg, torch.optim.SGD)(
        groups,
        lr=node.BASE_LR,
        momentum=node.MOMENTUM,
        nesterov=node.NESTEROV,
        weight_decay=node.WEIGHT_DECAY,
    )


def get_default_optimizer_params(
    model: nn.Module,
    base_lr: float | None = None,
    weight_decay: float | None = None,
    weight_decay_norm: float | None = None,
    bias_lr_factor: float | None = 1.0,
    weight_decay_bias: float | None = None,
    lr_factor_func: Callable[[str], float] | None = None,
    overrides: dict[str, dict[str, float]] | None = None,
) -> ParamGroups:
    """Parameter groups for an optimizer; what is None stays the optimizer's own default.

    Args:
        model: its parameters that require a gradient, each once.
        base_lr: learning rate.
        weight_decay: weight decay.
        weight_decay_norm: weight decay of normalisation layers.
        bias_lr_factor: times base_lr for parameters named "bias".
        weight_decay_bias: weight decay of parameters named "bias".
        lr_factor_func: full parameter name -> factor of its learning rate.
        overrides: last part of a parameter's name -> options; they win over all the others.

    Raises:
        ValueError: a factor without base_lr, or two settings for biases.
    """
    defaults = _given(lr=base_lr, weight_decay=weight_decay)
    scales_bias = bias_lr_factor not in (None, 1.0)
    if base_lr is None and (scales_bias or lr_factor_func is not None):
        factor = "bias_lr_factor" if scales_bias else "lr_factor_func"
        raise ValueError(f"{factor} scales base_lr, which is None; give base_lr too")
    of_bias = _given(
        lr=base_lr * bias_lr_factor if scales_bias else None, weight_decay=weight_decay_bias
    )
    overrides = dict(overrides or {})
    if of_bias:
        if "bias" in overrides:
            raise ValueError(f"biases have overrides {overrides['bias']} and {of_bias}; give one")
        overrides["bias"] = of_bias

    groups, seen = [], set()
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or parameter in seen:
                continue
            seen.add(parameter)
            options = dict(defaults)
            if isinstance(module, _NORMS) and weight_decay_norm is not None:
                options["weight_decay"] = weight_decay_norm
            if lr_factor_func is not None:
                options["lr"] *= lr_factor_func(f"{module_name}.{name}")
            options.update(overrides.get(name, {}))
            groups.append({"params": [parameter], **options})
    return reduce_param_groups(groups)


def _given(**options: float | None) -> dict[str, float]:
    return {key: value for key, value in options.items() if value is not None}


def reduce_param_groups(params: ParamGroups) -> ParamGroups:
    """Join the groups that have equal options, in the order in which these first appear."""
    joined: dict[frozenset, dict[str, Any]] = {}
    for group in params:
        options = {key: value for key, value in group.items() if key != "params"}
        same = joined.setdefault(frozenset(options.items()), {**options, "params": []})
        same["params"].extend(group["params"])
    return list(joined.values())


def _multi_step(node: CfgNode) -> ParamScheduler:
    steps = [step for step in node.STEPS if step <= node.MAX_ITER]
    if len(steps) < len(node.STEPS):
        logging.getLogger(__name__).warning(
            "SOLVER.STEPS=%s: those above SOLVER.MAX_ITER=%d have no effect",
            node.STEPS,
            node.MAX_ITER,
        )
    values = [node.GAMMA**k for k in range(len(steps) + 1)]
    return MultiStepParamScheduler(values, milestones=steps, num_updates=node.MAX_ITER)


def _cosine(node: CfgNode) -> ParamScheduler:
    end = node.BASE_LR_END / node.BASE_LR
    if not 0 <= end <= 1:
        raise ValueError(
            f"SOLVER.BASE_LR_END={node.BASE_LR_END}; set it between 0 and "
            f"SOLVER.BASE_LR={node.BASE_LR}"
        )
    return CosineParamScheduler(1, end)


def _step_with_fixed_gamma(node: CfgNode) -> ParamScheduler:
    num_values = node.NUM_DECAYS + 1
    values = [node.GAMMA**k for k in range(num_values)]
    milestones = [math.ceil(node.MAX_ITER * k / num_values) for k in range(1, num_values)]
    return MultiStepParamScheduler(values, milestones=milestones, num_updates=node.MAX_ITER)


_SCHEDULES: dict[str, Callable[[CfgNode], ParamScheduler]] = {
    "WarmupMultiStepLR": _multi_step,
    "WarmupCosineLR": _cosine,
    "WarmupStepWithFixedGammaLR": _step_with_fixed_gamma,
}


def build_lr_scheduler(cfg: CfgNode, optimizer: Optimizer) -> LRScheduler:
    """The schedule that SOLVER.LR_SCHEDULER_NAME names, with the SOLVER.WARMUP_* keys.

    Raises:
        ValueError: there is no schedule of this name, or its keys contradict each other.
    """
    node = cfg.SOLVER
    if node.LR_SCHEDULER_NAME not in _SCHEDULES:
        raise ValueError(
            f"SOLVER.LR_SCHEDULER_NAME={node.LR_SCHEDULER_NAME!r}; "
            f"set it to one of {', '.join(_SCHEDULES)}"
        )
    multiplier = WarmupParamScheduler(
        _SCHEDULES[node.LR_SCHEDULER_NAME](node),
        node.WARMUP_FACTOR,
        min(node.WARMUP_ITERS / node.MAX_ITER, 1.0),
        node.WARMUP_METHOD,
        node.RESCALE_INTERVAL,
    )
    return LRMultiplier(optimizer, multiplier, max_iter=node.MAX_ITER)
