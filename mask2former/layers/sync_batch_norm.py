"""Batch norm over all processes on devices for which torch's own has no kernels."""

from detectron2.layers import NaiveSyncBatchNorm
from torch import Tensor, nn

from mask2former.device import full_precision


class PortableSyncBatchNorm(NaiveSyncBatchNorm):
    """detectron2's NaiveSyncBatchNorm, in float32 whatever autocast made of its input."""

    # (B,C,H,W) -> (B,C,H,W)
    def forward(self, x: Tensor) -> Tensor:
        with full_precision(x.device.type):
            return super().forward(x.float()).to(x.dtype)


def convert_sync_batch_norm(module: nn.Module) -> nn.Module:
    """`module` with each torch SyncBatchNorm replaced; parameters, buffers and names stay."""
    if isinstance(module, nn.SyncBatchNorm):
        converted = PortableSyncBatchNorm(
            module.num_features,
            module.eps,
            module.momentum,
            module.affine,
            module.track_running_stats,
        )
        converted._parameters.update(module._parameters)
        converted._buffers.update(module._buffers)
        return converted.train(module.training)
    for name, child in module.named_children():
        setattr(module, name, convert_sync_batch_norm(child))
    return module
