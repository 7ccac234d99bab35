"""Gradient checkpointing: keep a module's inputs instead of what it computes, compute it again.

The second forward pass, within backward, draws the same random numbers and leaves the statistics
of batch norms alone, so that losses, gradients and buffers are as without it.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def recompute_in_backward(modules: Iterable[nn.Module]) -> None:
    """Let each of `modules` keep no more than its inputs for backward, when it is training.

    Names of parameters and hooks stay. What is called must return a tensor of its tensor inputs.
    """
    for module in modules:
        # On the instance: a wrapping module would rename the parameters of every checkpoint.
        module.forward = partial(_forward, module, module.forward)


def _forward(module: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not (module.training and torch.is_grad_enabled()):
        return forward(*args, **kwargs)

    def contexts() -> tuple[Any, Any]:
        return nullcontext(), _frozen_statistics(module)

    return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts, **kwargs)


@contextmanager
def _frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Batch norms within normalise by their batch, but do not add it to their running statistics.

    The buffers cannot be put back afterwards instead: backward holds them, unchanged.
    """
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
    before = [(norm.track_running_stats, norm.momentum) for norm in norms]
    for norm in norms:
        norm.track_running_stats = False
        norm.momentum = 0.0  # detectron2's NaiveSyncBatchNorm looks at this alone
    try:
        yield
    finally:
        for norm, (track, momentum) in zip(norms, before):
            norm.track_running_stats, norm.momentum = track, momentum
