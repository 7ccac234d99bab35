"""The masks of N objects of one image, as bitmaps or as polygons.

N number of objects, H W image size, S side of a cropped mask. A polygon is a float64 array
[x0, y0, x1, y1, ...] in pixels, with at least three corners; an object has a list of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import torch

from .boxes import Boxes
from .mask_resampling import crop_masks, paste_masks


def polygons_to_bitmask(polygons: list[np.ndarray], height: int, width: int) -> np.ndarray:
    """The union of `polygons` as a bool array (H,W)."""
    if len(polygons) == 0:  # pycocotools refuses an empty list
        return np.zeros((height, width), dtype=bool)
    rles = mask_util.frPyObjects([np.asarray(p).tolist() for p in polygons], height, width)
    return mask_util.decode(mask_util.merge(rles)).astype(bool)


def rasterize_polygons_within_box(
    polygons: list[np.ndarray], box: np.ndarray, mask_size: int
) -> torch.Tensor:
    """The part of an object inside `box` (XYXY), stretched to a bool (S,S)."""
    size = np.maximum(np.asarray(box[2:]) - box[:2], 0.1)  # an empty box must not divide by 0
    moved = [((p.reshape(-1, 2) - box[:2]) * (mask_size / size)).reshape(-1) for p in polygons]
    return torch.from_numpy(polygons_to_bitmask(moved, mask_size, mask_size))


class BitMasks:
    """Bitmaps: a bool tensor (N,H,W)."""

    def __init__(self, tensor: torch.Tensor | np.ndarray):
        if not isinstance(tensor, torch.Tensor):
            tensor = torch.from_numpy(np.asarray(tensor))
        tensor = tensor.to(torch.bool)
        assert tensor.dim() == 3, tensor.shape
        self.image_size = tensor.shape[1:]
        self.tensor = tensor

    def to(self, *args: Any, **kwargs: Any) -> BitMasks:
        return BitMasks(self.tensor.to(*args, **kwargs))

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    def __getitem__(self, item: int | slice | torch.Tensor) -> BitMasks:
        if isinstance(item, int):
            return BitMasks(self.tensor[item].unsqueeze(0))
        picked = self.tensor[item]
        assert picked.dim() == 3, f"index {item} picks {tuple(picked.shape)}, not whole masks"
        return BitMasks(picked)

    def __iter__(self) -> Iterator[torch.Tensor]:
        yield from self.tensor

    def __len__(self) -> int:
        return self.tensor.shape[0]

    def __repr__(self) -> str:
        return f"BitMasks(num_instances={len(self)})"

    def nonempty(self) -> torch.Tensor:  # bool (N,)
        return self.tensor.flatten(1).any(dim=1)

    @staticmethod
    def from_polygon_masks(
        polygon_masks: PolygonMasks | list[list[np.ndarray]], height: int, width: int
    ) -> BitMasks:
        if isinstance(polygon_masks, PolygonMasks):
            polygon_masks = polygon_masks.polygons
        masks = [polygons_to_bitmask(polygons, height, width) for polygons in polygon_masks]
        return BitMasks(np.stack(masks) if masks else np.zeros((0, height, width), dtype=bool))

    @staticmethod
    def from_roi_masks(roi_masks: ROIMasks, height: int, width: int) -> BitMasks:
        """
        Raises:
            TypeError: always, as in the real detectron2, because ROIMasks do not know their boxes;
                `roi_masks.to_bitmasks(boxes, height, width)` takes them.
        """
        raise TypeError("ROIMasks have no boxes; use roi_masks.to_bitmasks(boxes, height, width)")

    def crop_and_resize(self, boxes: torch.Tensor, mask_size: int) -> torch.Tensor:
        """Crop each mask by its box (N,4) and resize it -> bool (N,S,S).

        An output pixel is the bilinear mean over its cell (Mask R-CNN's RoIAlign), cut at 0.5.
        """
        assert len(boxes) == len(self), f"{len(boxes)} boxes for {len(self)} masks"
        return crop_masks(self.tensor.float(), boxes.to(self.device), mask_size) >= 0.5

    def get_bounding_boxes(self) -> Boxes:
        """The tight box of each mask; zeros for an empty one."""
        rows, columns = self.tensor.any(dim=2).int(), self.tensor.any(dim=1).int()  # (N,H), (N,W)
        low = [columns.argmax(dim=1), rows.argmax(dim=1)]  # argmax finds the first of equals
        high = [side.shape[1] - side.flip(1).argmax(dim=1) for side in (columns, rows)]
        return Boxes(torch.stack(low + high, dim=1) * self.nonempty()[:, None])

    @staticmethod
    def cat(bitmasks_list: list[BitMasks]) -> BitMasks:
        assert isinstance(bitmasks_list, (list, tuple)) and len(bitmasks_list) > 0
        return BitMasks(torch.cat([masks.tensor for masks in bitmasks_list]))


class PolygonMasks:
    """Polygons: `polygons[i]` is the list of polygons of object i, on the CPU.

    Raises:
        ValueError: the nesting is another one, or a polygon has not two values for each of at least
            three corners.
    """

    def __init__(self, polygons: list[list[torch.Tensor | np.ndarray]]):
        if not isinstance(polygons, list):
            raise ValueError(
                f"PolygonMasks got a {type(polygons).__name__}; "
                "give a list (objects) of lists (polygons) of arrays"
            )
        self.polygons: list[list[np.ndarray]] = [_check_polygons(one) for one in polygons]

    def to(self, *args: Any, **kwargs: Any) -> PolygonMasks:
        return self

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def get_bounding_boxes(self) -> Boxes:
        """The tight box of each object; zeros for one without polygons."""
        boxes = torch.zeros(len(self), 4)
        for index, polygons in enumerate(self.polygons):
            if polygons:
                corners = np.concatenate(polygons).reshape(-1, 2)
                box = np.concatenate([corners.min(axis=0), corners.max(axis=0)])
                boxes[index] = torch.from_numpy(box)
        return Boxes(boxes)

    def nonempty(self) -> torch.Tensor:  # bool (N,)
        return torch.tensor([len(polygons) > 0 for polygons in self.polygons], dtype=torch.bool)

    def __getitem__(self, item: int | slice | list[int] | torch.Tensor) -> PolygonMasks:
        if isinstance(item, int):
            return PolygonMasks([self.polygons[item]])
        if isinstance(item, slice):
            return PolygonMasks(self.polygons[item])
        indices = np.asarray(item.cpu() if isinstance(item, torch.Tensor) else item)
        if indices.dtype == bool:
            assert indices.shape == (len(self),), indices.shape
            indices = indices.nonzero()[0]
        elif indices.size > 0 and indices.dtype not in (np.int32, np.int64):
            raise ValueError(f"PolygonMasks cannot be indexed by {indices.dtype} values")
        return PolygonMasks([self.polygons[index] for index in indices])

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        return iter(self.polygons)

    def __len__(self) -> int:
        return len(self.polygons)

    def __repr__(self) -> str:
        return f"PolygonMasks(num_instances={len(self)})"

    def crop_and_resize(self, boxes: torch.Tensor, mask_size: int) -> torch.Tensor:
        """Crop each object by its box (N,4) and rasterise it -> bool (N,S,S)."""
        assert len(boxes) == len(self), f"{len(boxes)} boxes for {len(self)} masks"
        masks = [
            rasterize_polygons_within_box(polygons, box, mask_size)
            for polygons, box in zip(self.polygons, boxes.cpu().numpy())
        ]
        empty = torch.empty(0, mask_size, mask_size, dtype=torch.bool)
        return (torch.stack(masks) if masks else empty).to(boxes.device)

    def area(self) -> torch.Tensor:
        """Areas (N,) in pixels; where polygons of an object overlap, they count twice."""
        areas = [sum(polygon_area(p[0::2], p[1::2]) for p in one) for one in self.polygons]
        return torch.tensor(areas, dtype=torch.float64)

    @staticmethod
    def cat(polymasks_list: list[PolygonMasks]) -> PolygonMasks:
        assert isinstance(polymasks_list, (list, tuple)) and len(polymasks_list) > 0
        return PolygonMasks(list(itertools.chain(*(masks.polygons for masks in polymasks_list))))


class ROIMasks:
    """Masks (N,h,w) of probabilities, each relative to a box that is kept elsewhere."""

    def __init__(self, tensor: torch.Tensor):
        if tensor.dim() != 3:
            raise ValueError(f"ROIMasks got a tensor of shape {tuple(tensor.shape)}; give (N,h,w)")
        self.tensor = tensor

    def to(self, device: torch.device) -> ROIMasks:
        return ROIMasks(self.tensor.to(device))

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    def __len__(self) -> int:
        return self.tensor.shape[0]

    def __getitem__(self, item: slice | torch.Tensor) -> ROIMasks:
        """A slice, or a tensor of indices or bools."""
        return ROIMasks(self.tensor[item])

    def __repr__(self) -> str:
        return f"ROIMasks(num_instances={len(self)})"

    def to_bitmasks(
        self, boxes: Boxes, height: int, width: int, threshold: float = 0.5
    ) -> BitMasks:
        """Paste the masks into an image of (height, width) and cut them at `threshold`."""
        boxes = boxes if isinstance(boxes, Boxes) else Boxes(boxes)
        return BitMasks(paste_masks(self.tensor, boxes.tensor, height, width) >= threshold)


def polygon_area(x: np.ndarray, y: np.ndarray) -> float:
    """Area inside a polygon (the shoelace formula)."""
    return 0.5 * abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))))


def _check_polygons(polygons: list[torch.Tensor | np.ndarray]) -> list[np.ndarray]:
    if not isinstance(polygons, list):
        raise ValueError(
            f"PolygonMasks got a {type(polygons).__name__} for an object; give a list of polygons"
        )
    arrays = [
        np.asarray(p.cpu() if isinstance(p, torch.Tensor) else p, dtype=np.float64)
        for p in polygons
    ]
    for array in arrays:
        if len(array) % 2 != 0 or len(array) < 6:
            raise ValueError(
                f"a polygon has {len(array)} coordinates; give x and y of at least three corners"
            )
    return arrays
