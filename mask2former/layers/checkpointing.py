"""Gradient checkpointing: keep a module's inputs instead of what it computes, compute it again.

The second forward pass, within backward, draws the same random numbers and leaves the statistics
of batch norms alone, so that losses, gradients and buffers are as without it.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def recompute_in_backward(modules: Iterable[nn.Module]) -> None:
    """Let each of `modules` keep no more than its inputs for backward, while it is training.

    The names of parameters stay. A module must not change its inputs in place.
    """
    for module in modules:
        # On the instance: a module around it would rename the parameters.
        module.forward = partial(_forward, module, module.forward)


def _forward(module: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not (module.training and torch.is_grad_enabled()):
        return forward(*args, **kwargs)

    def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
        return nullcontext(), _unchanged_buffers(module)

    return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts, **kwargs)


@contextmanager
def _unchanged_buffers(module: nn.Module) -> Iterator[None]:
    """Buffers, such as the running statistics of batch norms, are copies that are then dropped.

    To put old values back instead would spoil what backward has kept of them.
    """
    owners = [m._buffers for m in module.modules()]
    originals = [dict(buffers) for buffers in owners]
    for buffers in owners:
        buffers.update({k: v.clone() for k, v in buffers.items() if v is not None})
    try:
        yield
    finally:
        for buffers, original in zip(owners, originals):
            buffers.update(original)
