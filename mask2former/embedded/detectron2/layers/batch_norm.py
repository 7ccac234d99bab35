"""Normalisation layers and the table that config strings choose from.

Legend: B batch, C channels, H W height and width, R ranks.
"""

from collections.abc import Callable
from typing import Any

import torch
from fvcore.nn.distributed import differentiable_all_gather
from torch import Tensor, nn
from torch.nn import functional as F

from detectron2.utils import comm

from .wrappers import BatchNorm2d


class FrozenBatchNorm2d(nn.Module):
    """Batch norm with fixed statistics and a fixed affine map, all of them buffers.

    Weights folded in the Caffe2 manner (weight and bias alone) belong to the identity statistics
    that it starts with: mean 0, variance 1 - eps.
    """

    # State dicts below version 2 may lack the statistics; version 3 starts at variance 1 - eps.
    _version = 3

    def __init__(self, num_features: int, eps: float = 1e-5):
        super().__init__()
        self.num_features, self.eps = num_features, eps
        identity = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0 - eps}
        for name, value in identity.items():
            self.register_buffer(name, torch.full((num_features,), value))
        # Only a layer that was converted from a BatchNorm2d carries (and saves) a count.
        self.register_buffer("num_batches_tracked", None)

    def forward(self, x: Tensor) -> Tensor:  # (B,C,H,W) -> (B,C,H,W)
        if not x.requires_grad:
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        # The fused kernel would keep `x` and compute gradients of weight and bias for nobody.
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        shift = self.bias - self.running_mean * scale
        return x * _per_channel(scale, x) + _per_channel(shift, x)

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, local_metadata: dict[str, Any], *args
    ) -> None:
        if (local_metadata.get("version") or 1) < 2:
            for name, fill in (("running_mean", torch.zeros), ("running_var", torch.ones)):
                state_dict.setdefault(prefix + name, fill(self.num_features))
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)

    def extra_repr(self) -> str:
        return f"num_features={self.num_features}, eps={self.eps}"

    @classmethod
    def convert_frozen_batchnorm(cls, module: nn.Module) -> nn.Module:
        """Replace every BatchNorm2d and SyncBatchNorm inside `module` by its frozen form.

        Returns:
            A new module if `module` itself is such a norm, else `module`, changed in place.
        """
        return _replace(module, (nn.BatchNorm2d, nn.SyncBatchNorm), cls)

    @classmethod
    def convert_frozenbatchnorm2d_to_batchnorm2d(cls, module: nn.Module) -> nn.Module:
        """The way back: every FrozenBatchNorm2d inside `module` becomes a BatchNorm2d."""
        return _replace(module, cls, nn.BatchNorm2d)


def _per_channel(values: Tensor, x: Tensor) -> Tensor:  # (C,), (B,C,H,W) -> (1,C,1,1)
    return values.to(x.dtype)[None, :, None, None]


def _replace(module: nn.Module, old: type | tuple[type, ...], new: type) -> nn.Module:
    if not isinstance(module, old):
        for name, child in module.named_children():
            replaced = _replace(child, old, new)
            if replaced is not child:
                setattr(module, name, replaced)
        return module
    norm = new(module.num_features, eps=module.eps)
    norm.to(module.running_mean.device).train(module.training)
    for name in ("weight", "bias", "running_mean", "running_var"):
        source = getattr(module, name)
        if source is not None:  # weight and bias of a norm without the affine map
            getattr(norm, name).data = source.detach().clone()
    if module.num_batches_tracked is not None:
        norm.num_batches_tracked = module.num_batches_tracked.clone()
    return norm


class NaiveSyncBatchNorm(nn.BatchNorm2d):
    """Batch norm over all ranks with ordinary collectives, for devices without a kernel for it.

    Each rank's mean and variance count alike (`stats_mode=""`, empty batches forbidden) or by the
    rank's batch size (`stats_mode="N"`, empty batches allowed). Outside of training, and in a
    single process, it is BatchNorm2d. The running variance is the biased one.
    """

    def __init__(self, *args, stats_mode: str = "", **kwargs):
        super().__init__(*args, **kwargs)
        assert stats_mode in ("", "N"), stats_mode
        self._stats_mode = stats_mode

    def forward(self, input: Tensor) -> Tensor:  # (B,C,H,W) -> (B,C,H,W)
        if not self.training or comm.get_world_size() == 1:
            return super().forward(input)
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        mean, var, has_input = self._stats_over_ranks(x)
        with torch.no_grad():
            momentum = self.momentum * has_input
            self.running_mean += momentum * (mean - self.running_mean)
            self.running_var += momentum * (var - self.running_var)
        scale = self.weight * torch.rsqrt(var + self.eps)
        shift = self.bias - mean * scale
        return (x * _per_channel(scale, x) + _per_channel(shift, x)).to(input.dtype)

    def _stats_over_ranks(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean (C,) and variance (C,) over all ranks; 1 if any rank had an input, else 0."""
        batch_size, num_channels = x.shape[:2]
        if batch_size == 0:
            assert self._stats_mode == "N", 'stats_mode="" does not support an empty batch'
            # zeros that still lead back to x: backward has a collective too, on every rank
            mean = var = x.sum((0, 2, 3))
        else:
            var, mean = torch.var_mean(x, (0, 2, 3), correction=0)
        importance = mean.new_full((1,), batch_size if self._stats_mode == "N" else 1)
        gathered = differentiable_all_gather(torch.cat([mean, var, importance]))
        means, variances, importances = torch.stack(gathered).split(
            [num_channels, num_channels, 1], dim=1
        )  # (R,C), (R,C), (R,1)
        share = importances / importances.sum().clamp(min=1)
        mean = (share * means).sum(0)
        # Variance within ranks plus variance between them: E[x^2] - E[x]^2 would cancel digits.
        var = (share * (variances + (means - mean).square())).sum(0)
        return mean, var, importances.sum().clamp(max=1)


class LayerNorm(nn.Module):
    """Layer norm over the channels of a map that has them in front."""

    def __init__(self, normalized_shape: int, eps: float = 1e-6):
        super().__init__()
        self.eps = eps
        self.normalized_shape = (normalized_shape,)
        for name, value in (("weight", 1.0), ("bias", 0.0)):
            self.register_parameter(name, nn.Parameter(torch.full(self.normalized_shape, value)))

    def forward(self, x: Tensor) -> Tensor:  # (B,C,H,W) -> (B,C,H,W)
        x = x.movedim(1, -1)
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps).movedim(
            -1, 1
        )


_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "BN": BatchNorm2d,
    "SyncBN": nn.SyncBatchNorm,
    "nnSyncBN": nn.SyncBatchNorm,  # the older name of torch's own
    "naiveSyncBN": NaiveSyncBatchNorm,
    "naiveSyncBN_N": lambda channels: NaiveSyncBatchNorm(channels, stats_mode="N"),
    "FrozenBN": FrozenBatchNorm2d,
    "GN": lambda channels: nn.GroupNorm(32, channels),
    "LN": LayerNorm,
}


def get_norm(norm: str | Callable[[int], nn.Module] | None, out_channels: int) -> nn.Module | None:
    """The norm that a config string names, for `out_channels` channels.

    Args:
        norm: "" or None (no norm), one of BN, SyncBN, nnSyncBN, naiveSyncBN, naiveSyncBN_N,
            FrozenBN, GN, LN; or a function of the number of channels.
        out_channels: number of channels.

    Raises:
        ValueError: there is no norm of this name.
    """
    if not norm:
        return None
    if isinstance(norm, str):
        if norm not in _NORMS:
            raise ValueError(f"norm {norm!r} is unknown; use '' or one of {', '.join(_NORMS)}")
        norm = _NORMS[norm]
    return norm(out_channels)
