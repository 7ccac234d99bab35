"""COCO segmentations: polygons or run lengths, moved with their picture and drawn as masks.

P corners of a polygon, H W a size in pixels. Polygons stay polygons while a picture is resized,
flipped and cropped, so that their borders are drawn once, at the size at which they are learned.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pycocotools.mask

from mask2former.data.geometry import Geometry
from mask2former.layers.run_lengths import counts_of

# Polygons, each (P,2) float64 as x, y, or a mask (H,W) uint8.
Segmentation = list[np.ndarray] | np.ndarray


def read_segmentation(segmentation: Any, height: int, width: int) -> Segmentation:
    """Check what an annotation has as "segmentation" and bring it into one of two forms.

    Args:
        segmentation: polygons [[x0, y0, x1, y1, ...], ...], or a dict with "size" (height, width)
            and "counts", compressed or not.
        height, width: of the picture. What of a polygon lies outside is cut off.

    Returns:
        polygons with at least three corners, perhaps none, or a mask.

    Raises:
        ValueError: it has another form, another size, or is damaged. The message says what was
            found, of "its segmentation"; whose that is, and what to do, is for the caller to say.
    """
    if isinstance(segmentation, dict):
        return _decode(segmentation, height, width)
    if not isinstance(segmentation, Sequence) or isinstance(segmentation, str):
        raise ValueError(
            f"its segmentation is of type {type(segmentation).__name__}, neither polygons (a list "
            "of lists) nor run lengths (a dict of size and counts)"
        )
    polygons = [clip_polygon(_corners(polygon), height, width) for polygon in segmentation]
    return [polygon for polygon in polygons if len(polygon) >= 3]  # two corners cover no pixel


def covers_any(segmentation: Segmentation) -> bool:
    """Whether there is anything of an object within its picture: a pixel, or a polygon's area."""
    if isinstance(segmentation, np.ndarray):
        return bool(segmentation.any())
    return any(_area(polygon) > 0 for polygon in segmentation)


def draw(segmentation: Segmentation, height: int, width: int) -> np.ndarray:
    """The mask (H,W) bool of a segmentation; polygons are united."""
    if isinstance(segmentation, np.ndarray):
        return segmentation.astype(bool)
    return pycocotools.mask.decode(_unite(segmentation, height, width)).astype(bool)


def run_lengths(segmentation: Segmentation, height: int, width: int) -> np.ndarray:
    """(R,) the lengths of the runs of its mask, down the columns, the first of background."""
    if isinstance(segmentation, np.ndarray):
        return counts_of(encode(segmentation)["counts"])
    return counts_of(_unite(segmentation, height, width)["counts"])


def encode(mask: np.ndarray) -> dict[str, Any]:
    """(H,W) -> its compressed run lengths, size and counts (bytes)."""
    return pycocotools.mask.encode(np.asfortranarray(mask, dtype=np.uint8))


def box(mask: np.ndarray) -> list[int]:
    """(H,W), not empty -> x, y, width, height of the smallest box around its pixels."""
    return pycocotools.mask.toBbox(encode(mask)).astype(int).tolist()


def transform(segmentation: Segmentation, geometry: Geometry) -> Segmentation:
    """Move a segmentation as its picture was moved.

    Corners are moved one by one, also by a crop: `draw` cuts off what then lies outside.
    """
    if isinstance(segmentation, np.ndarray):
        return geometry.labels(segmentation, "pillow")
    return [geometry.coords(polygon) for polygon in segmentation]


def clip_polygon(polygon: np.ndarray, height: int, width: int) -> np.ndarray:
    """(P,2) -> (P',2): the part of a polygon inside a picture (Sutherland and Hodgman, 1974).

    Parts that the border separates stay joined by edges along the border, which cover no pixel.
    """
    for axis, limit, sign in ((0, 0, 1), (0, width, -1), (1, 0, 1), (1, height, -1)):
        depth = sign * (polygon[:, axis] - limit)  # (P,), not negative inside
        inside = depth >= 0
        if inside.all():
            continue
        crosses = inside != np.roll(inside, -1)  # from this corner to the next one
        step = np.roll(depth, -1) - depth
        share = np.divide(-depth, step, out=np.zeros_like(depth), where=crosses)
        crossing = polygon + share[:, None] * (np.roll(polygon, -1, axis=0) - polygon)
        crossing[:, axis] = limit
        points = np.stack([polygon, crossing], axis=1)  # (P,2,2): each corner, then a crossing
        polygon = points[np.stack([inside, crosses], axis=1)]
    return polygon


def _unite(polygons: list[np.ndarray], height: int, width: int) -> dict[str, Any]:
    """The compressed run lengths of all of them together."""
    clipped = [clip_polygon(polygon, height, width) for polygon in polygons]
    flat = [polygon.reshape(-1) for polygon in clipped if len(polygon) >= 3]
    if not flat:
        nothing = {"size": [height, width], "counts": [height * width]}
        return pycocotools.mask.frPyObjects(nothing, height, width)
    return pycocotools.mask.merge(pycocotools.mask.frPyObjects(flat, height, width))


def _area(polygon: np.ndarray) -> float:
    x, y = polygon.T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def _corners(polygon: Any) -> np.ndarray:
    if not isinstance(polygon, (Sequence, np.ndarray)) or isinstance(polygon, str):
        raise ValueError(
            f"its segmentation has {polygon!r} where each polygon should be a list of its own, "
            "[[x0, y0, x1, y1, ...], ...]"
        )
    try:
        values = np.asarray(polygon, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"its segmentation has a polygon that is no list of numbers ({error})"
        ) from error
    if values.ndim != 1 or len(values) % 2:
        raise ValueError(
            f"its segmentation has a polygon of the shape {values.shape}, not an even number of "
            "coordinates [x0, y0, x1, y1, ...]"
        )
    if not np.isfinite(values).all():
        raise ValueError("its segmentation has a polygon with coordinates that are no numbers")
    return values.reshape(-1, 2)


def _decode(rle: dict, height: int, width: int) -> np.ndarray:
    size, counts = rle.get("size"), rle.get("counts")
    if not isinstance(counts, (list, str, bytes)) or not isinstance(size, (list, tuple)):
        raise ValueError("its segmentation is a dict without size and counts of run lengths")
    if tuple(size) != (height, width):
        raise ValueError(
            f"its segmentation has the size {list(size)}, but the picture [{height}, {width}]"
        )
    try:
        if isinstance(counts, list):
            if min(counts, default=0) < 0:
                raise ValueError(f"one of them is {min(counts)}")
            covered = sum(counts)
            rle = pycocotools.mask.frPyObjects(rle, height, width)
        else:
            covered = counts_of(counts).sum()
        # Where run lengths end early, pycocotools leaves what the memory held before.
        if covered != height * width:
            raise ValueError(f"they cover {covered}")
        return pycocotools.mask.decode(rle)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"its segmentation has run lengths that do not fill {height}x{width} pixels ({error})"
        ) from error
