"""Bases of convolutional blocks."""

from collections.abc import Callable
from typing import Any

from fvcore.nn.weight_init import c2_msra_fill
from torch import Tensor, nn

from .batch_norm import FrozenBatchNorm2d, get_norm
from .wrappers import Conv2d


class CNNBlockBase(nn.Module):
    """A block with `in_channels`, `out_channels` and a spatial `stride`; (B,C,H,W) in and out."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.stride = stride

    def freeze(self) -> "CNNBlockBase":
        """Stop all training of this block: parameters and batch statistics. Returns itself."""
        for parameter in self.parameters():
            parameter.requires_grad = False
        FrozenBatchNorm2d.convert_frozen_batchnorm(self)
        return self


class DepthwiseSeparableConv2d(nn.Module):
    """A convolution a channel (with norm1, activation1), then a 1x1 one (norm2, activation2)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        padding: int = 1,
        dilation: int = 1,
        *,
        norm1: str | Callable | None = None,
        activation1: Callable[[Tensor], Tensor] | None = None,
        norm2: str | Callable | None = None,
        activation2: Callable[[Tensor], Tensor] | None = None,
    ):
        super().__init__()

        def following(channels: int, norm: str | Callable | None, activation: Any) -> dict:
            return {"bias": not norm, "norm": get_norm(norm, channels), "activation": activation}

        per_channel = {"padding": padding, "dilation": dilation, "groups": in_channels}
        per_channel |= following(in_channels, norm1, activation1)
        self.depthwise = Conv2d(in_channels, in_channels, kernel_size, **per_channel)
        mixing = following(out_channels, norm2, activation2)
        self.pointwise = Conv2d(in_channels, out_channels, kernel_size=1, **mixing)
        for convolution in (self.depthwise, self.pointwise):
            c2_msra_fill(convolution)

    def forward(self, x: Tensor) -> Tensor:  # (B,C,H,W) -> (B,C',H',W')
        return self.pointwise(self.depthwise(x))
