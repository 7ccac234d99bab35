"""Masks cut out of boxes and pasted into them.

Both are a bilinear resampling on an axis-aligned grid, which is separable: rows @ mask @ columns,
with one small matrix an axis. N masks, h w their size, H W image size, S side of a crop.
"""

from __future__ import annotations

import math

import torch


def _bilinear_weights(positions: torch.Tensor, size: int) -> torch.Tensor:
    """Weights (P,size) of the pixels with centres 0..size-1 at `positions` (P,); 0 is outside."""
    centers = torch.arange(size, dtype=positions.dtype, device=positions.device)
    return (1 - (positions[:, None] - centers).abs()).clamp(min=0)


def _crop_weights(
    start: float, end: float, size: int, mask_size: int, like: torch.Tensor
) -> torch.Tensor:
    """Mean weights (S,size) of S equal cells between `start` and `end` (edges of pixels).

    As in RoIAlign with adaptive sampling: a cell takes one sample a pixel of its length, a sample
    up to one pixel outside counts as the border, and one further out as 0.
    """
    cell = (end - start) / mask_size
    num_samples = math.ceil(cell)
    if num_samples <= 0:
        return like.new_zeros(mask_size, size)
    steps = torch.arange(mask_size * num_samples, dtype=like.dtype, device=like.device) + 0.5
    positions = start - 0.5 + steps * (cell / num_samples)
    inside = (positions >= -1) & (positions <= size)
    weights = _bilinear_weights(positions.clamp(0, size - 1), size) * inside[:, None]
    return weights.reshape(mask_size, num_samples, size).mean(dim=1)


def crop_masks(masks: torch.Tensor, boxes: torch.Tensor, mask_size: int) -> torch.Tensor:
    """RoIAlign of each mask by its own box: (N,H,W), (N,4) -> (N,S,S), all float."""
    height, width = masks.shape[1:]
    crops = masks.new_zeros(len(masks), mask_size, mask_size)
    for crop, mask, (x0, y0, x1, y1) in zip(crops, masks, boxes.tolist()):
        rows = _crop_weights(y0, y1, height, mask_size, masks)
        columns = _crop_weights(x0, x1, width, mask_size, masks)
        crop.copy_(rows @ mask @ columns.T)
    return crops


def paste_masks(masks: torch.Tensor, boxes: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Stretch each mask over its box in an empty image: (N,h,w), (N,4) -> (N,H,W), all float."""

    def weights(start: torch.Tensor, end: torch.Tensor, length: int, size: int) -> torch.Tensor:
        pixels = torch.arange(length, dtype=masks.dtype, device=masks.device) + 0.5
        return _bilinear_weights((pixels - start) / (end - start) * size - 0.5, size)

    pasted = masks.new_zeros(len(masks), height, width)
    for image, mask, (x0, y0, x1, y1) in zip(pasted, masks, boxes):
        rows = weights(y0, y1, height, mask.shape[0])
        columns = weights(x0, x1, width, mask.shape[1])
        image.copy_(rows @ mask @ columns.T)
    return pasted
