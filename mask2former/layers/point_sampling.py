"""Masks at points instead of pixels (PointRend; paper, sec. 3.3).

N maps (masks), C channels, P points. A point is (x, y) in [0, 1] x [0, 1] of the map it is taken
from, so that the same points fit a prediction at stride 4 and a target at stride 1.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx

from mask2former.layers.chunks import chunks

# grid_sample goes from point to point with all channels of a map. Those of a few masks stay in the
# cache meanwhile, and it shares maps among threads, but not channels. With channels last, those of
# a point lie together anyway.
CHANNELS_AT_ONCE = 16


class _Sample(torch.autograd.Function):
    """grid_sample that keeps the points for its gradient, but not the maps: it has no use for them.

    Gradients reach the maps only.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, maps: Tensor, points: Tensor) -> Tensor:
        ctx.save_for_backward(points)
        ctx.shape = maps.shape
        return F.grid_sample(maps, _grid(points), align_corners=False).squeeze(3)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        (points,) = ctx.saved_tensors
        maps = gradient.new_zeros(()).expand(ctx.shape)
        modes = (0, 0, False)  # bilinear, zeros beyond the border, corners not aligned
        gradient, _ = torch.ops.aten.grid_sampler_2d_backward(
            gradient[..., None], maps, _grid(points), *modes, (True, False)
        )
        return gradient, None


def _grid(points: Tensor) -> Tensor:
    return 2 * points[:, :, None] - 1  # grid_sample counts from -1 to 1


def point_sample(maps: Tensor, points: Tensor) -> Tensor:
    """Bilinear values of `maps`, of any type, at `points`; beyond the border everything is zero.

    The result has the type of `points`, which get no gradient.

    Shapes: (N,C,H,W), (N,P,2) -> (N,C,P)
    """
    num_maps, num_channels, *size = maps.shape
    at_once = num_channels
    if maps.stride(1) != 1:
        at_once = max(n for n in range(1, CHANNELS_AT_ONCE + 1) if num_channels % n == 0)
    groups = maps.reshape(-1, at_once, *size).to(points.dtype)
    num_groups = num_channels // at_once
    points = points[:, None].expand(-1, num_groups, -1, -1).flatten(0, 1)
    return _Sample.apply(groups, points).view(num_maps, num_channels, -1)


def sample_targets(masks: Tensor, points: Tensor) -> Tensor:
    """Values of single masks, each at its own points; a few masks at a time are made numbers.

    Shapes: (N,H,W) bool or of any other type, (N,P,2) -> (N,P)
    """
    values = points.new_empty(points.shape[:2])
    numbers_each = masks.shape[1] * masks.shape[2] + 2 * points.shape[1]  # of a mask and its grid
    for some in chunks(len(masks), numbers_each * points.element_size()):
        values[some] = point_sample(masks[some, None], points[some])[:, 0]
    return values


def random_points(
    num_maps: Sequence[int],
    num_points: int,
    generators: Sequence[torch.Generator | None],
    device: torch.device,
) -> Tensor:
    """Uniform points for the maps of several images, each image from its own generator.

    What an image gets depends on its generator alone, so not on its companions in the batch.
    A generator of None is torch's global one.

    Args:
        num_maps: maps of each image; N is their sum.
    Returns:
        (N,P,2) float32.
    """
    return torch.cat(
        [
            torch.rand(n, num_points, 2, generator=generator, device=device)
            for n, generator in zip(num_maps, generators)
        ]
    )


def uncertain_points(mask_logits: Tensor, candidates: Tensor, num_points: int) -> Tensor:
    """Those of the candidates where a mask is least decided: where its logit is next to 0.

    Shapes: (N,H,W), (N,*,2) -> (N,P,2)
    """
    distance = point_sample(mask_logits[:, None], candidates)[:, 0].abs()
    nearest = distance.topk(num_points, dim=1, largest=False, sorted=False).indices
    return candidates.gather(1, nearest[:, :, None].expand(-1, -1, 2))
