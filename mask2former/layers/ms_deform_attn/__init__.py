"""Multi-scale deformable attention (Deformable DETR, sec. 4.1): one module, several ops."""

from mask2former.layers.ms_deform_attn import (  # noqa: F401  (registers)
    embedding_bag,
    gather,
    native,
    reference,
    tecoops,
    triton_op,
)
from mask2former.layers.ms_deform_attn.build import (
    MS_DEFORM_ATTN_REGISTRY,
    MSDeformAttnOp,
    build_ms_deform_attn,
)
from mask2former.layers.ms_deform_attn.module import MSDeformAttn

__all__ = [
    "MS_DEFORM_ATTN_REGISTRY",
    "MSDeformAttn",
    "MSDeformAttnOp",
    "build_ms_deform_attn",
]
