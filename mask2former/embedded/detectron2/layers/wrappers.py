"""torch.nn layers with the few things that torch lacks, and small tensor functions.

Legend: B batch, C channels, H W height and width.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# torch treats empty batches in these by itself; the names belong to the public API.
BatchNorm2d = nn.BatchNorm2d
ConvTranspose2d = nn.ConvTranspose2d
Linear = nn.Linear
interpolate = F.interpolate


class Conv2d(nn.Conv2d):
    """Convolution, then an optional norm, then an optional activation.

    Takes what `torch.nn.Conv2d` takes and the keywords `norm` (a module, kept as the child
    "norm") and `activation` (a function). The bias is the caller's choice: a norm makes it idle.
    """

    def __init__(
        self,
        *args,
        norm: nn.Module | None = None,
        activation: Callable[[Tensor], Tensor] | None = None,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        self.norm = norm
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:  # (B,C,H,W) -> (B,C',H',W')
        if self.training and x.numel() == 0:
            # its collective would wait for statistics that an empty batch does not have
            assert not isinstance(self.norm, nn.SyncBatchNorm), "SyncBatchNorm needs an input"
        x = super().forward(x)
        if self.norm is not None:
            x = self.norm(x)
        if self.activation is not None:
            x = self.activation(x)
        return x


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """`torch.cat` that returns a single tensor as it is, without a copy."""
    assert isinstance(tensors, (list, tuple)), type(tensors)
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors, dim)


def nonzero_tuple(x: Tensor) -> tuple[Tensor, ...]:
    """Indices of the nonzero elements, one tensor a dimension; a scalar counts as (1,)."""
    return torch.atleast_1d(x).nonzero(as_tuple=True)


def cross_entropy(input: Tensor, target: Tensor, *, reduction: str = "mean", **kwargs) -> Tensor:
    """`F.cross_entropy` whose mean over no targets is 0 (with a gradient), not NaN."""
    if target.numel() == 0 and reduction == "mean":
        return input.sum() * 0.0
    return F.cross_entropy(input, target, reduction=reduction, **kwargs)


def shapes_to_tensor(x: Sequence[int], device: torch.device | None = None) -> Tensor:
    """Sizes as an integer tensor."""
    return torch.as_tensor(x, device=device)


def move_device_like(src: Tensor, dst: Tensor) -> Tensor:
    """`src` on the device of `dst`."""
    return src.to(dst.device)
