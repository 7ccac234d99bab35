"""Where deformable attention looks, and how much each look counts (Deformable DETR, sec. 4.1).

B batch, Q queries, M heads, L levels, P points.
"""

import torch
from torch import Tensor

from mask2former.layers.levels import Levels


def locate_and_weigh(
    levels: Levels, reference_points: Tensor, offsets: Tensor, logits: Tensor
) -> tuple[Tensor, Tensor]:
    """Sampling locations and attention weights, for ops that do not find them themselves.

    A location is (x, y) with (0, 0) the top left and (1, 1) the bottom right corner of its level.
    An offset is in pixels of its level; the weights of a query and head sum to 1 over all levels
    and points. Both are at least float32: half precision cannot tell one pixel from the next.

    Shapes: L levels, (Q,2), (B,Q,M,L,P,2), (B,Q,M,L,P) -> (B,Q,M,L,P,2), (B,Q,M,L,P)
    """
    dtype = torch.promote_types(offsets.dtype, torch.float32)
    locations = reference_points[:, None, None, None] + offsets.to(dtype) / levels.sizes[:, None]
    weights = logits.to(dtype).flatten(-2).softmax(-1)
    return locations, weights.view(logits.shape)
