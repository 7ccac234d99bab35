"""The optimizer: parameter groups as the official training has them, and gradient clipping."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.solver.build import maybe_add_gradient_clipping
from torch import Tensor, nn

from mask2former.device import has_fused_optimizers

NORMS = (
    nn.modules.batchnorm._NormBase,  # batch norms of all kinds, SyncBN and instance norms
    nn.GroupNorm,
    nn.LayerNorm,
    nn.LocalResponseNorm,
)
# Position tables that are parameters, not nn.Embedding: of Swin's windows and of its patches.
POSITION_TABLES = ("relative_position_bias_table", "absolute_pos_embed")


def parameter_settings(
    cfg: CfgNode, model: nn.Module
) -> Iterator[tuple[str, nn.Parameter, float, float]]:
    """(name, parameter, learning rate, weight decay) of each trained parameter, each once.

    The backbone learns BACKBONE_MULTIPLIER times as fast; norms decay by WEIGHT_DECAY_NORM,
    embeddings by WEIGHT_DECAY_EMBED, position tables not at all (official `build_optimizer`).
    """
    solver = cfg.SOLVER
    seen = set()
    for module_name, module in model.named_modules():
        for parameter_name, parameter in module.named_parameters(recurse=False):
            name = f"{module_name}.{parameter_name}" if module_name else parameter_name
            if not parameter.requires_grad or parameter in seen:
                continue
            seen.add(parameter)
            in_backbone = "backbone" in name.split(".")
            lr = solver.BASE_LR * (solver.BACKBONE_MULTIPLIER if in_backbone else 1.0)
            if parameter_name in POSITION_TABLES:
                weight_decay = 0.0
            elif isinstance(module, NORMS):
                weight_decay = solver.WEIGHT_DECAY_NORM
            elif isinstance(module, nn.Embedding):
                weight_decay = solver.WEIGHT_DECAY_EMBED
            else:
                weight_decay = solver.WEIGHT_DECAY
            yield name, parameter, lr, weight_decay


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """SOLVER.OPTIMIZER over as few groups as there are different settings.

    Raises:
        ValueError: the optimizer's name is unknown.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for _, parameter, lr, weight_decay in parameter_settings(cfg, model):
        groups.setdefault((lr, weight_decay), []).append(parameter)
    params = [
        {"params": parameters, "lr": lr, "weight_decay": weight_decay}
        for (lr, weight_decay), parameters in groups.items()
    ]
    solver = cfg.SOLVER
    if solver.OPTIMIZER == "ADAMW":
        kind, own = torch.optim.AdamW, {}
    elif solver.OPTIMIZER == "SGD":
        kind, own = torch.optim.SGD, {"momentum": solver.MOMENTUM, "nesterov": solver.NESTEROV}
    else:
        raise ValueError(f"SOLVER.OPTIMIZER={solver.OPTIMIZER!r}; set it to ADAMW or SGD")
    is_fused = all(has_fused_optimizers(p.device.type) for group in params for p in group["params"])
    optimizer = clipped(cfg, kind)(params, solver.BASE_LR, fused=is_fused or None, **own)
    optimizer.register_load_state_dict_pre_hook(keep_way_to_compute)
    if is_fused:
        optimizer.register_step_pre_hook(lie_as_their_parameters)
    return optimizer


def keep_way_to_compute(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """`state` with `fused` and `foreach` of this optimizer, not of the one that was saved.

    That one may have been on another device, or of a project that does not choose them.
    """
    own = {name: optimizer.defaults[name] for name in ("fused", "foreach")}
    return {**state, "param_groups": [{**group, **own} for group in state["param_groups"]]}


def lie_as_their_parameters(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """Give gradients and states the strides of their parameters, which nearly always they have.

    torch's fused kernels for the CPU take that for granted, and would mix up the elements.
    """
    for parameter in (p for group in optimizer.param_groups for p in group["params"]):
        if parameter.grad is not None:
            parameter.grad = _lying_as(parameter, parameter.grad)
        state = optimizer.state.get(parameter, {})
        state.update({name: _lying_as(parameter, value) for name, value in state.items()})


def _lying_as(parameter: nn.Parameter, value: Any) -> Any:
    if not isinstance(value, Tensor) or value.shape != parameter.shape:
        return value
    if value.stride() == parameter.stride():
        return value
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def clipped(
    cfg: CfgNode, optimizer_class: type[torch.optim.Optimizer]
) -> type[torch.optim.Optimizer]:
    """`optimizer_class` with SOLVER.CLIP_GRADIENTS before each step.

    CLIP_TYPE full_model bounds the norm over all parameters; the others are detectron2's, which
    bound each parameter by itself.
    """
    clip = cfg.SOLVER.CLIP_GRADIENTS
    if not clip.ENABLED or clip.CLIP_VALUE <= 0:
        return optimizer_class
    if clip.CLIP_TYPE != "full_model":
        return maybe_add_gradient_clipping(cfg, optimizer_class)
    max_norm, norm_type = clip.CLIP_VALUE, clip.NORM_TYPE

    class FullModelClipping(optimizer_class):
        known_norm: Tensor | None = None  # of all gradients, where the training loop has it

        def step(self, closure: Callable[[], float] | None = None) -> float | None:
            parameters = [p for group in self.param_groups for p in group["params"]]
            norm = self.known_norm if norm_type == 2 else None
            self.known_norm = None
            if gradients := gradients_of(parameters):
                norm = gradient_norm(parameters, norm_type) if norm is None else norm
                # Also where there is nothing to clip: to ask would be to wait for the device.
                torch._foreach_mul_(gradients, (max_norm / (norm + 1e-6)).clamp(max=1.0))
            return super().step(closure)

    return FullModelClipping


def gradients_of(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    return [p.grad for p in parameters if p.grad is not None]


def gradient_norm(parameters: Iterable[nn.Parameter], norm_type: float = 2.0) -> Tensor:
    """The norm over all gradients, a scalar: one number to watch, and to see NaN in."""
    norms = torch._foreach_norm(gradients_of(parameters), norm_type)
    return torch.linalg.vector_norm(torch.stack(norms), norm_type)
