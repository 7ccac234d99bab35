"""Masks that may overlap, as lengths of runs: how they travel, to be drawn on arrival.

N masks, R runs of all of them, h w the picture's content, H W its frame
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mask2former.device import sums_integers
from mask2former.layers.frames import pad_to


class RunLengthMasks:
    """What a bool tensor (N,H,W) says of objects, in some thousand numbers.

    Runs go down a mask's columns, left to right, background and foreground in turn, as in COCO's
    run lengths. Each mask has an even number of them, so that those of all masks together take
    turns as well.

    Indexed by an int it gives a bool mask (H,W); by a slice, or a tensor of indices or bools,
    RunLengthMasks. Beyond the content there is nothing of any mask.

    Args:
        runs: (R,) int32, of the content.
        bounds: N + 1 numbers: mask i has runs[bounds[i] : bounds[i + 1]].
        content: (h, w).
        size: (H, W).
        device: where the masks shall be. None: where the runs are; elsewhere they are if that
            device could not draw them.
    """

    def __init__(
        self,
        runs: Tensor,
        bounds: Sequence[int],
        content: Sequence[int],
        size: Sequence[int],
        device: torch.device | None = None,
    ):
        assert runs.dim() == 1 and bounds[-1] == len(runs), (runs.shape, bounds)
        self.runs = runs
        self.bounds = tuple(bounds)
        self.content = tuple(content)
        self.size = tuple(size)
        self.device = runs.device if device is None else device

    @classmethod
    def from_counts(
        cls, counts: Sequence[np.ndarray], content: Sequence[int], size: Sequence[int]
    ) -> RunLengthMasks:
        """
        Args:
            counts: of each mask the lengths of its runs, which fill the content.
        """
        even = [np.append(c, 0) if len(c) % 2 else c for c in counts]
        bounds = (0, *itertools.accumulate(map(len, even)))
        runs = np.concatenate([*even, np.zeros(0, np.int32)]).astype(np.int32)
        return cls(torch.from_numpy(runs), bounds, content, size)

    def padded(self, height: int, width: int) -> Tensor:
        """All of them in a larger frame: (N,height,width) bool.

        The host waits for nothing: how many pixels there will be is known.
        """
        (h, w), num_masks = self.content, len(self)
        ends = self.runs.cumsum(0)  # (R,): the pixel of all masks in a row before which a run ends
        steps = torch.ones_like(self.runs, dtype=torch.int8)  # into the foreground
        steps[1::2].neg_()  # and out of it
        pixels = self.runs.new_zeros(num_masks * h * w + 1, dtype=torch.int8)
        # Adding, because runs of length 0 end where the ones before them do.
        pixels = pixels.index_add_(0, ends, steps)[:-1].cumsum(0, dtype=torch.int8)
        columns = pixels.view(torch.bool).view(num_masks, w, h)
        return pad_to(columns.transpose(1, 2), (height, width)).contiguous().to(self.device)

    @property
    def tensor(self) -> Tensor:
        """All of them: (N,H,W) bool."""
        return self.padded(*self.size)

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self), *self.size))

    def to(self, device: torch.device | str, non_blocking: bool = False) -> RunLengthMasks:
        device = torch.device(device)
        runs = self.runs
        if sums_integers(device.type):
            runs = runs.to(device, non_blocking=non_blocking)
        return RunLengthMasks(runs, self.bounds, self.content, self.size, device)

    def pin_memory(self) -> RunLengthMasks:
        return RunLengthMasks(self.runs.pin_memory(), self.bounds, self.content, self.size)

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __getitem__(self, item: int | slice | Tensor) -> Tensor | RunLengthMasks:
        item = item.cpu() if isinstance(item, Tensor) else item
        picked = torch.arange(len(self))[item]
        if picked.dim() == 0:
            return self[[int(picked)]].tensor[0]
        parts = [self.runs[self.bounds[i] : self.bounds[i + 1]] for i in picked.tolist()]
        runs = torch.cat([*parts, self.runs[:0]])
        bounds = (0, *itertools.accumulate(map(len, parts)))
        return RunLengthMasks(runs, bounds, self.content, self.size, self.device)

    def __repr__(self) -> str:
        return f"RunLengthMasks(num_masks={len(self)}, size={self.size})"
