"""Axis-aligned boxes: their formats, a tensor of them, and their overlaps.

N, M number of boxes. Coordinates are in pixels; x1 = x0 + width, without the old "+1".
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum, unique
from typing import TypeVar

import numpy as np
import torch

_Box = TypeVar("_Box", list, tuple, np.ndarray, torch.Tensor)


@unique
class BoxMode(IntEnum):
    """How the numbers of a box are to be read; the values stand in dataset dicts and JSON files."""

    XYXY_ABS = 0
    XYWH_ABS = 1
    XYXY_REL = 2
    XYWH_REL = 3
    XYWHA_ABS = 4  # centre x, centre y, width, height, counter-clockwise angle in degrees

    @staticmethod
    def convert(box: _Box, from_mode: BoxMode, to_mode: BoxMode) -> _Box:
        """Convert one box (list or tuple of 4 or 5 numbers) or many ((N,4) or (N,5) array, tensor).

        Returns the same type and dtype as was given; the input is not changed.

        Raises:
            ValueError: the box has another length, or a mode is relative.
            NotImplementedError: there is no conversion between these two modes.
        """
        if from_mode == to_mode:
            return box
        is_sequence = isinstance(box, (list, tuple))
        columns = len(box) if is_sequence else box.shape[-1]
        if columns not in (4, 5) or (is_sequence and np.ndim(box) != 1):
            raise ValueError(
                f"BoxMode.convert got {columns} values; give a list or tuple of 4 or 5 numbers, "
                "or an (N,4) or (N,5) array or tensor"
            )
        for mode in (from_mode, to_mode):
            if mode in (BoxMode.XYXY_REL, BoxMode.XYWH_REL):
                raise ValueError(
                    f"{BoxMode(mode).name} boxes cannot be converted; scale them to pixels first"
                )
        function = _CONVERSIONS.get((from_mode, to_mode))
        if function is None:
            raise NotImplementedError(
                f"no conversion from {BoxMode(from_mode).name} to {BoxMode(to_mode).name}"
            )
        is_tensor = isinstance(box, torch.Tensor)
        values = box if is_tensor else torch.from_numpy(np.asarray(box))
        converted = function(values)
        if is_sequence:
            return type(box)(converted.tolist())
        return converted if is_tensor else converted.numpy()


def _xywh_to_xyxy(box: torch.Tensor) -> torch.Tensor:
    return torch.cat([box[..., :2], box[..., :2] + box[..., 2:4], box[..., 4:]], dim=-1)


def _xyxy_to_xywh(box: torch.Tensor) -> torch.Tensor:
    return torch.cat([box[..., :2], box[..., 2:4] - box[..., :2], box[..., 4:]], dim=-1)


def _xywha_to_xyxy(box: torch.Tensor) -> torch.Tensor:
    """The box around the rotated one."""
    center, size, angle = box.double().split([2, 2, 1], dim=-1)
    cos, sin = angle.deg2rad().cos().abs(), angle.deg2rad().sin().abs()
    half = (cos * size + sin * size.flip(-1)) / 2
    return torch.cat([center - half, center + half], dim=-1).to(box.dtype)


def _xywh_to_xywha(box: torch.Tensor) -> torch.Tensor:
    corner, size = box.double().split([2, 2], dim=-1)
    return torch.cat([corner + size / 2, size, size[..., :1] * 0], dim=-1).to(box.dtype)


_CONVERSIONS = {
    (BoxMode.XYWH_ABS, BoxMode.XYXY_ABS): _xywh_to_xyxy,
    (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS): _xyxy_to_xywh,
    (BoxMode.XYWHA_ABS, BoxMode.XYXY_ABS): _xywha_to_xyxy,
    (BoxMode.XYWH_ABS, BoxMode.XYWHA_ABS): _xywh_to_xywha,
}


class Boxes:
    """N boxes as one float32 tensor (N,4) in XYXY_ABS; indexes and concatenates like a tensor."""

    def __init__(self, tensor: torch.Tensor):
        tensor = torch.as_tensor(tensor, dtype=torch.float32)
        if tensor.numel() == 0:
            tensor = tensor.reshape(-1, 4)
        assert tensor.dim() == 2 and tensor.shape[1] == 4, tensor.shape
        self.tensor = tensor

    def clone(self) -> Boxes:
        return Boxes(self.tensor.clone())

    def to(self, device: torch.device) -> Boxes:
        return Boxes(self.tensor.to(device=device))

    def area(self) -> torch.Tensor:  # (N,)
        return (self.tensor[:, 2:] - self.tensor[:, :2]).prod(dim=1)

    def clip(self, box_size: tuple[int, int]) -> None:
        """Move, in place, what lies outside an image of `box_size` = (height, width) onto its edge.

        Raises:
            AssertionError: a coordinate is infinite or NaN.
        """
        assert torch.isfinite(self.tensor).all(), "Boxes has infinite or NaN coordinates"
        height, width = box_size
        limit = self.tensor.new_tensor([width, height, width, height])
        self.tensor = self.tensor.clamp(min=0).minimum(limit)

    def nonempty(self, threshold: float = 0.0) -> torch.Tensor:  # bool (N,)
        """True where both sides are longer than `threshold` pixels."""
        return (self.tensor[:, 2:] - self.tensor[:, :2] > threshold).all(dim=1)

    def inside_box(self, box_size: tuple[int, int], boundary_threshold: int = 0) -> torch.Tensor:
        """True (N,) where a box lies in the image of (height, width), or this far outside."""
        height, width = box_size
        limit = self.tensor.new_tensor([width, height]) + boundary_threshold
        above = (self.tensor[:, :2] >= -boundary_threshold).all(dim=1)
        return above & (self.tensor[:, 2:] < limit).all(dim=1)

    def get_centers(self) -> torch.Tensor:  # (N,2) as x, y
        return (self.tensor[:, :2] + self.tensor[:, 2:]) / 2

    def scale(self, scale_x: float, scale_y: float) -> None:
        """Multiply, in place, all x by `scale_x` and all y by `scale_y`."""
        self.tensor[:, 0::2] *= scale_x
        self.tensor[:, 1::2] *= scale_y

    @classmethod
    def cat(cls, boxes_list: list[Boxes]) -> Boxes:
        if not isinstance(boxes_list, (list, tuple)):
            raise TypeError(f"Boxes.cat takes a list of Boxes, got {type(boxes_list).__name__}")
        if len(boxes_list) == 0:
            return cls(torch.empty(0, 4))
        return cls(torch.cat([boxes.tensor for boxes in boxes_list]))

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    def __getitem__(self, item: int | slice | list | torch.Tensor) -> Boxes:
        """An index, a slice, a list or a tensor of indices or bools; always gives Boxes."""
        if isinstance(item, int):
            item = slice(item, item + 1 or None)
        return Boxes(self.tensor[item])

    def __len__(self) -> int:
        return self.tensor.shape[0]

    def __iter__(self) -> Iterator[torch.Tensor]:
        yield from self.tensor

    def __repr__(self) -> str:
        return f"Boxes({self.tensor})"


def pairwise_intersection(boxes1: Boxes, boxes2: Boxes) -> torch.Tensor:
    """Common area of every pair: (N,4), (M,4) -> (N,M)."""
    first, second = boxes1.tensor[:, None], boxes2.tensor[None]
    low = torch.maximum(first[..., :2], second[..., :2])
    high = torch.minimum(first[..., 2:], second[..., 2:])
    return (high - low).clamp(min=0).prod(dim=-1)


def _ratio(intersection: torch.Tensor, area: torch.Tensor) -> torch.Tensor:
    """intersection / area, and 0 where there is no intersection: empty boxes would give 0 / 0."""
    return torch.where(intersection > 0, intersection / area, torch.zeros_like(intersection))


def pairwise_iou(boxes1: Boxes, boxes2: Boxes) -> torch.Tensor:
    """Intersection over union of every pair: (N,4), (M,4) -> (N,M)."""
    intersection = pairwise_intersection(boxes1, boxes2)
    return _ratio(intersection, boxes1.area()[:, None] + boxes2.area() - intersection)


def pairwise_ioa(boxes1: Boxes, boxes2: Boxes) -> torch.Tensor:
    """Intersection over the area of the second box, for every pair: (N,4), (M,4) -> (N,M)."""
    return _ratio(pairwise_intersection(boxes1, boxes2), boxes2.area())
