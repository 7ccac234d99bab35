"""Sampling of maps at points (PointRend, Kirillov et al. 2020).

Legend: B maps, C channels, P points, H W height and width. Points are (x, y) in [0, 1] x [0, 1],
relative to the whole map.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


def point_sample(input: Tensor, point_coords: Tensor, **kwargs) -> Tensor:
    """Values of maps at points, bilinear by default.

    Args:
        input: (B,C,H,W).
        point_coords: (B,P,2) or (B,Hp,Wp,2).
        **kwargs: for `F.grid_sample`.

    Returns:
        (B,C,P) or (B,C,Hp,Wp).
    """
    if point_coords.dim() == 3:
        return point_sample(input, point_coords[:, :, None], **kwargs)[..., 0]
    return F.grid_sample(input, 2 * point_coords - 1, **kwargs)


def generate_regular_grid_point_coords(
    R: int, side_size: int, device: torch.device | str
) -> Tensor:  # (R,side_size**2,2)
    """Centres of a grid of side_size x side_size cells, row by row, for each of R maps."""
    centres = (torch.arange(side_size, device=device) + 0.5) / side_size
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    return torch.stack([x, y], dim=-1).view(1, -1, 2).expand(R, -1, -1)


def get_uncertain_point_coords_with_randomness(
    coarse_logits: Tensor,
    uncertainty_func: Callable[[Tensor], Tensor],
    num_points: int,
    oversample_ratio: float,
    importance_sample_ratio: float,
) -> Tensor:
    """Points where the prediction is uncertain, and some anywhere (PointRend, sec. 3.1).

    Args:
        coarse_logits: (B,C,H,W).
        uncertainty_func: logits (B,C,P) -> uncertainties (B,1,P).
        num_points: how many points a map.
        oversample_ratio: candidates per point, at least 1.
        importance_sample_ratio: which part of the points are the most uncertain candidates, in
            [0, 1]; the rest is uniform.

    Returns:
        (B,num_points,2).
    """
    assert oversample_ratio >= 1, oversample_ratio
    assert 0 <= importance_sample_ratio <= 1, importance_sample_ratio
    num_maps, device = coarse_logits.shape[0], coarse_logits.device
    candidates = torch.rand(num_maps, int(num_points * oversample_ratio), 2, device=device)
    # Uncertainty is a function of the interpolated logits: that of an interpolated uncertainty
    # would miss the boundary between two certain pixels.
    logits = point_sample(coarse_logits, candidates, align_corners=False)
    uncertainty = uncertainty_func(logits)[:, 0]  # (B,candidates)
    num_uncertain = int(num_points * importance_sample_ratio)
    index = uncertainty.topk(num_uncertain, dim=1).indices
    chosen = candidates.gather(1, index[:, :, None].expand(-1, -1, 2))
    if num_uncertain == num_points:
        return chosen
    uniform = torch.rand(num_maps, num_points - num_uncertain, 2, device=device)
    return torch.cat([chosen, uniform], dim=1)
