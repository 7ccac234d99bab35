"""Masks with one bit a pixel, for pictures whose masks as bool would not fit into memory.

N instances, H W the picture, B = ceil(W / 8) bytes of a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


class PackedMasks:
    """What a bool tensor (N,H,W) says, in an eighth of its memory.

    Indexed by an int, or looped over, it gives bool masks (H,W); by a slice, or a tensor of indices
    or bools, PackedMasks. Bits rather than run lengths: they stay on the device that made them, and
    their size is known whatever the masks are. A row begins with a new byte, whose first pixel is
    its highest bit.

    Args:
        bits: (N,H,B) uint8.
        width: W.
    """

    def __init__(self, bits: Tensor, width: int):
        assert bits.dim() == 3 and bits.dtype == torch.uint8, (bits.shape, bits.dtype)
        assert bits.shape[2] == -(-width // 8), (bits.shape, width)
        self.bits = bits
        self.width = width

    @classmethod
    def pack(cls, masks: Tensor) -> PackedMasks:
        """Shapes: (N,H,W) bool"""
        width = masks.shape[2]
        padded = F.pad(masks, (0, -width % 8)) if width % 8 else masks
        bits = padded.unflatten(2, (-1, 8)) * _weights(masks.device)  # (N,H,B,8)
        return cls(bits.sum(3, dtype=torch.uint8), width)

    @classmethod
    def zeros(cls, shape: Sequence[int], device: torch.device | str = "cpu") -> PackedMasks:
        """Empty masks, of a shape (N,H,W)."""
        num_masks, height, width = shape
        size = num_masks, height, -(-width // 8)
        return cls(torch.zeros(size, dtype=torch.uint8, device=device), width)

    def _unpack(self, bits: Tensor) -> Tensor:  # (..,H,B) -> (..,H,W) bool
        pixels = (bits[..., None] & _weights(bits.device)) != 0
        return pixels.flatten(-2)[..., : self.width]

    @property
    def tensor(self) -> Tensor:
        """All of them unpacked: (N,H,W) bool."""
        return self._unpack(self.bits)

    @property
    def shape(self) -> torch.Size:
        return torch.Size((*self.bits.shape[:2], self.width))

    @property
    def device(self) -> torch.device:
        return self.bits.device

    def to(self, *args: Any, **kwargs: Any) -> PackedMasks:
        return PackedMasks(self.bits.to(*args, **kwargs), self.width)

    def numpy(self) -> np.ndarray:
        """All of them unpacked: (N,H,W) bool."""
        return self.tensor.numpy()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.numpy().astype(dtype or bool, copy=False)  # it is a copy in any case

    def any(self, dim: int) -> Tensor:
        return self.tensor.any(dim)

    def __len__(self) -> int:
        return len(self.bits)

    def __iter__(self) -> Iterator[Tensor]:
        for bits in self.bits:
            yield self._unpack(bits)

    def __getitem__(self, item: int | slice | Tensor) -> Tensor | PackedMasks:
        picked = self.bits[item]
        if picked.dim() == 2:
            return self._unpack(picked)
        return PackedMasks(picked, self.width)

    def __setitem__(self, item: slice | Tensor, masks: Tensor) -> None:  # (n,H,W) bool
        self.bits[item] = PackedMasks.pack(masks).bits

    def __repr__(self) -> str:
        return f"PackedMasks(num_instances={len(self)}, image_size={tuple(self.shape[1:])})"

    @staticmethod
    def cat(parts: Sequence[PackedMasks]) -> PackedMasks:
        widths = {part.width for part in parts}
        assert len(widths) == 1, f"masks of pictures of different widths: {sorted(widths)}"
        return PackedMasks(torch.cat([part.bits for part in parts]), widths.pop())


def _weights(device: torch.device) -> Tensor:
    """The values of a byte's bits: (8,) uint8."""
    return torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.uint8, device=device)
