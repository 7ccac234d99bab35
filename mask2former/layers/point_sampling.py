"""Masks at points instead of pixels (PointRend; paper, sec. 3.3).

N maps (masks), C channels, P points. A point is (x, y) in [0, 1] x [0, 1] of the map it is taken
from, so that the same points fit a prediction at stride 4 and a target at stride 1.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def point_sample(maps: Tensor, points: Tensor) -> Tensor:
    """Bilinear values of `maps` at `points`; beyond the border everything is zero.

    Shapes: (N,C,H,W), (N,P,2) -> (N,C,P)
    """
    grid = 2 * points[:, :, None] - 1  # grid_sample counts from -1 to 1
    return F.grid_sample(maps, grid, align_corners=False).squeeze(3)


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


def sample_uncertain_points(
    mask_logits: Tensor,
    num_points: int,
    oversample_ratio: float,
    importance_sample_ratio: float,
    draw: Callable[[int], Tensor],
) -> Tensor:
    """Points that favour where a mask is undecided: where its logit is next to 0.

    Of `num_points * oversample_ratio` random points the least decided are kept, to make up
    `importance_sample_ratio` of the result; the rest is random.

    Args:
        draw: num -> (N,num,2), random points for each mask.
    Shapes: (N,H,W) -> (N,P,2)
    """
    num_uncertain = int(num_points * importance_sample_ratio)
    candidates = draw(int(num_points * oversample_ratio))
    distance = point_sample(mask_logits[:, None], candidates)[:, 0].abs()
    nearest = distance.topk(num_uncertain, dim=1, largest=False, sorted=False).indices
    uncertain = candidates.gather(1, nearest[:, :, None].expand(-1, -1, 2))
    return torch.cat((uncertain, draw(num_points - num_uncertain)), dim=1)
