"""The optimizer: parameter groups as the official training has them, and gradient clipping."""

import itertools
from collections.abc import Callable, Iterator

import torch
from detectron2.config import CfgNode
from detectron2.solver.build import maybe_add_gradient_clipping
from torch import nn

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
        return clipped(cfg, torch.optim.AdamW)(params, solver.BASE_LR)
    if solver.OPTIMIZER == "SGD":
        return clipped(cfg, torch.optim.SGD)(
            params, solver.BASE_LR, momentum=solver.MOMENTUM, nesterov=solver.NESTEROV
        )
    raise ValueError(f"SOLVER.OPTIMIZER={solver.OPTIMIZER!r}; set it to ADAMW or SGD")


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
        def step(self, closure: Callable[[], float] | None = None) -> float | None:
            parameters = itertools.chain(*(group["params"] for group in self.param_groups))
            nn.utils.clip_grad_norm_(parameters, max_norm, norm_type)
            return super().step(closure)

    return FullModelClipping
