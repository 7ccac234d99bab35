"""Convolutions that take a norm of fixed statistics behind them into their weights."""

import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from torch import Tensor, nn


class FoldingConv2d(Conv2d):
    """detectron2's Conv2d; it and a norm of fixed statistics behind it are one convolution.

    Nothing is kept: the weights are scaled anew in each forward, which costs less than the norm's
    way over the feature map, and weights and statistics may change at any time.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: (B,C,H,W) -> (B,C',H',W')"""
        if not has_fixed_statistics(self.norm) or _learns(*self.norm.parameters()):
            return super().forward(x)
        scale, shift = scale_and_shift(self.norm)
        if self.bias is not None:
            shift = shift + scale * self.bias
        if _learns(self.weight):  # backward would have to keep the scaled weights
            x = self._conv_forward(x, self.weight, None)
            x = x.mul_(scale.to(x.dtype)[:, None, None]).add_(shift.to(x.dtype)[:, None, None])
        else:
            x = self._conv_forward(x, self.weight * scale[:, None, None, None], shift)
        return x if self.activation is None else self.activation(x)


def fold_norms(model: nn.Module) -> None:
    """Let each convolution of detectron2's in `model` fold its norm; the names of all stay."""
    for module in model.modules():
        if type(module) is Conv2d and module.norm is not None:
            module.__class__ = FoldingConv2d


def has_fixed_statistics(norm: nn.Module | None) -> bool:
    """Whether `norm` is, at this moment, a scale and a shift of each channel."""
    if isinstance(norm, FrozenBatchNorm2d):
        return True
    is_batch_norm = isinstance(norm, nn.modules.batchnorm._BatchNorm)
    return is_batch_norm and not norm.training and norm.running_mean is not None


def scale_and_shift(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """What a norm of fixed statistics multiplies each channel by, and then adds: (C,), (C,)"""
    scale = torch.rsqrt(norm.running_var + norm.eps)
    if norm.weight is None:  # a norm without the affine map
        return scale, -norm.running_mean * scale
    scale = norm.weight * scale
    return scale, norm.bias - norm.running_mean * scale


def _learns(*parameters: Tensor) -> bool:
    return torch.is_grad_enabled() and any(p.requires_grad for p in parameters)
