"""Deformable attention in plain PyTorch: runs anywhere, and is what the other ways are held to.

B batch, Q queries, M heads, D channels a head, L levels, P points, S = sum of all H * W.
"""

import torch.nn.functional as F
from torch import Tensor

from mask2former.device import has_fused_sampling
from mask2former.layers.levels import Levels
from mask2former.layers.ms_deform_attn.build import MS_DEFORM_ATTN_REGISTRY, MSDeformAttnOp
from mask2former.layers.ms_deform_attn.sampling import locate_and_weigh


def ms_deform_attn_reference(
    value: Tensor, levels: Levels, sampling_locations: Tensor, attention_weights: Tensor
) -> Tensor:
    """One grid_sample a level, each head an image of its own; all in the type of the weights.

    Shapes: (B,S,M,D), L levels, (B,Q,M,L,P,2), (B,Q,M,L,P) -> (B,Q,M*D)
    """
    batch, _, num_heads, _ = value.shape
    maps = value.to(attention_weights.dtype).permute(0, 2, 3, 1).flatten(0, 1)  # (B*M,D,S)
    grids = (2 * sampling_locations - 1).transpose(1, 2).flatten(0, 1)  # (B*M,Q,L,P,2)
    weights = attention_weights.transpose(1, 2).flatten(0, 1)  # (B*M,Q,L,P)
    level_maps = maps.split([height * width for height, width in levels.shapes], dim=2)

    output = 0
    for level, (level_map, size) in enumerate(zip(level_maps, levels.shapes)):
        sampled = F.grid_sample(
            level_map.unflatten(2, size), grids[:, :, level], align_corners=False
        )  # (B*M,D,Q,P)
        output = output + (sampled * weights[:, None, :, level]).sum(-1)
    output = output.unflatten(0, (batch, num_heads)).permute(0, 3, 1, 2).flatten(2)
    return output.to(value.dtype)


@MS_DEFORM_ATTN_REGISTRY.register()
class Reference(MSDeformAttnOp):
    """Plain PyTorch."""

    @staticmethod
    def rank(device_type: str) -> int:
        return 2 if has_fused_sampling(device_type) else 0

    @staticmethod
    def why_not(device_type: str) -> str:
        return ""

    @staticmethod
    def run(
        value: Tensor, levels: Levels, reference_points: Tensor, offsets: Tensor, logits: Tensor
    ) -> Tensor:
        locations, weights = locate_and_weigh(levels, reference_points, offsets, logits)
        return ms_deform_attn_reference(value, levels, locations, weights)
