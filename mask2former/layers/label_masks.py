"""Masks that do not overlap, as one map of labels: how they travel, to be told apart on arrival.

N masks, h w the picture's content, H W its frame
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mask2former.layers.frames import pad_to


class LabelMasks:
    """What a bool tensor (N,H,W) says of segments or classes, in one number a pixel.

    Indexed by an int it gives a bool mask (H,W); by a slice, or a tensor of indices or bools,
    LabelMasks. Beyond the content there is nothing of any mask.

    Args:
        labels: (h,w), any type of integers.
        values: (N,), of the same type: mask i is where labels == values[i].
        size: (H, W).
    """

    def __init__(self, labels: Tensor, values: Tensor, size: Sequence[int]):
        assert labels.dim() == 2 and values.dim() == 1, (labels.shape, values.shape)
        assert labels.dtype == values.dtype, (labels.dtype, values.dtype)
        self.labels = labels
        self.values = values
        self.size = tuple(size)

    def padded(self, height: int, width: int) -> Tensor:
        """All of them in a larger frame: (N,height,width) bool."""
        return pad_to(self.labels == self.values[:, None, None], (height, width))

    @property
    def tensor(self) -> Tensor:
        """All of them: (N,H,W) bool."""
        return self.padded(*self.size)

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self), *self.size))

    @property
    def device(self) -> torch.device:
        return self.labels.device

    def to(self, device: torch.device | str, non_blocking: bool = False) -> LabelMasks:
        labels, values = (x.to(device, non_blocking=non_blocking) for x in self._parts)
        return LabelMasks(labels, values, self.size)

    def pin_memory(self) -> LabelMasks:
        labels, values = (x.pin_memory() for x in self._parts)
        return LabelMasks(labels, values, self.size)

    @property
    def _parts(self) -> tuple[Tensor, Tensor]:
        return self.labels, self.values

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, item: int | slice | Tensor) -> Tensor | LabelMasks:
        picked = self.values[item]
        if picked.dim() == 0:
            return pad_to(self.labels == picked, self.size)
        return LabelMasks(self.labels, picked, self.size)

    def __repr__(self) -> str:
        return f"LabelMasks(num_masks={len(self)}, size={self.size})"
