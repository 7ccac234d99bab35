"""Feature maps of several sizes, flattened and joined, as deformable attention looks at them.

L levels, S = sum of all H * W.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Levels(NamedTuple):
    """How large the levels are, and where each begins among the S pixels, on host and device."""

    shapes: tuple[tuple[int, int], ...]  # L x (H,W)
    sizes: Tensor  # (L,2) float32: (W,H), in the order of a location's (x, y)
    starts: Tensor  # (L,) int64


def on_device(numbers: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Numbers that are filled in there: a copy would wait for all that the device has to do."""
    return torch.stack([torch.full((), n, dtype=dtype, device=device) for n in numbers])


def describe_levels(shapes: Sequence[tuple[int, int]], device: torch.device) -> Levels:
    """The levels of L x (H,W); one description serves all layers of a forward pass."""
    sizes = [n for height, width in shapes for n in (width, height)]
    starts = [0, *itertools.accumulate(height * width for height, width in shapes)][:-1]
    return Levels(
        tuple(shapes),
        on_device(sizes, torch.float32, device).view(-1, 2),
        on_device(starts, torch.int64, device),
    )
