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


def describe_levels(shapes: Sequence[tuple[int, int]], device: torch.device) -> Levels:
    """The levels of L x (H,W); one description serves all layers of a forward pass."""

    # Numbers are filled in there: a copy would wait for all that the device still has to do.
    def on_device(numbers: Sequence[int], dtype: torch.dtype) -> Tensor:
        return torch.stack([torch.full((), n, dtype=dtype, device=device) for n in numbers])

    sizes = on_device([n for height, width in shapes for n in (width, height)], torch.float32)
    starts = [0, *itertools.accumulate(height * width for height, width in shapes)][:-1]
    return Levels(tuple(shapes), sizes.view(-1, 2), on_device(starts, torch.int64))
