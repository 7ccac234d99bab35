"""What a visualizer draws on and with: a picture, masks, colours."""

from __future__ import annotations

import colorsys
from enum import Enum, unique
from typing import Any

import cv2
import matplotlib.colors
import numpy as np
import pycocotools.mask as mask_util
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from detectron2.structures import polygons_to_bitmask


@unique
class ColorMode(Enum):
    """How instances get their colours."""

    IMAGE = 0  # each its own
    SEGMENTATION = 1  # that of its class, or a shade of it
    IMAGE_BW = 2  # each its own, and the rest of the image without colours


class VisImage:
    """An image, enlarged by `scale`, that matplotlib draws on.

    Drawing coordinates are pixels of the original image (H,W), with the origin at its upper left.

    Args:
        img: RGB (H,W,3), values 0..255.
    """

    def __init__(self, img: np.ndarray, scale: float = 1.0):
        self.img = img
        self.scale = scale
        self.height, self.width = img.shape[:2]
        self.dpi = 100
        # Agg cuts a size off to whole pixels, so a rounding error would lose one.
        size = (self.width * scale + 0.01) / self.dpi, (self.height * scale + 0.01) / self.dpi
        self.fig = Figure(figsize=size, dpi=self.dpi, frameon=False)
        self.canvas = FigureCanvasAgg(self.fig)
        self.ax = self.fig.add_axes([0.0, 0.0, 1.0, 1.0])
        self.ax.axis("off")
        self._background: AxesImage | None = None
        self.reset_image(img)

    def reset_image(self, img: np.ndarray) -> None:
        """Put another image of the same size under what was drawn."""
        if self._background is not None:
            self._background.remove()
        self._background = self.add_image(np.asarray(img).astype(np.uint8), (0, 0), zorder=-1)

    def add_image(self, img: np.ndarray, corner: tuple[int, int], zorder: float = 0) -> AxesImage:
        """Lay RGB or RGBA pixels (h,w,3|4) onto the picture, the upper left one at `corner`."""
        (x, y), (height, width) = corner, img.shape[:2]
        extent = (x, x + width, y + height, y)
        artist = self.ax.imshow(
            img, extent=extent, interpolation="nearest", aspect="auto", zorder=zorder
        )
        self.ax.set(xlim=(0, self.width), ylim=(self.height, 0))
        return artist

    def save(self, filepath: str) -> None:
        """Write the picture; the ending of `filepath` says in which format."""
        self.fig.savefig(filepath)

    def get_image(self) -> np.ndarray:
        """The picture: uint8 RGB (H * scale, W * scale, 3)."""
        self.canvas.draw()
        return np.asarray(self.canvas.buffer_rgba())[..., :3].copy()


class GenericMask:
    """A mask that came as a bitmap, as polygons or as RLE, and can be had as any of the first two.

    Args:
        mask_or_polygons: an array (H,W) of 0 and 1; or a list of polygons [x0, y0, x1, y1, ...];
            or COCO's RLE, {"size": [H, W], "counts": list or compressed}.
        height, width: of the image.

    Raises:
        ValueError: it is none of these, or has another size.
    """

    def __init__(self, mask_or_polygons: Any, height: int, width: int):
        self.height, self.width = height, width
        self._mask = self._polygons = self._has_holes = None
        given = mask_or_polygons
        if isinstance(given, list):
            self._polygons = [np.asarray(polygon, dtype=np.float64) for polygon in given]
            self._has_holes = False
            return
        if isinstance(given, dict):
            if isinstance(given["counts"], list):
                given = mask_util.frPyObjects(given, *given["size"])
            given = mask_util.decode(given)
        if not isinstance(given, (np.ndarray, torch.Tensor)):
            raise ValueError(f"a mask is a {type(given).__name__}; give an array, polygons or RLE")
        if tuple(given.shape) != (height, width):
            raise ValueError(f"a mask of size {tuple(given.shape)} in an image {(height, width)}")
        self._mask = (to_numpy(given) != 0).astype(np.uint8)

    @property
    def mask(self) -> np.ndarray:
        """uint8 (H,W), 0 or 1."""
        if self._mask is None:
            self._mask = self.polygons_to_mask(self._polygons)
        return self._mask

    @property
    def polygons(self) -> list[np.ndarray]:
        """Polygons [x0, y0, x1, y1, ...]; holes are not told from parts."""
        if self._polygons is None:
            self._polygons, self._has_holes = self.mask_to_polygons(self._mask)
        return self._polygons

    @property
    def has_holes(self) -> bool:
        """Known for bitmaps; polygons count as without holes."""
        if self._has_holes is None:
            self._polygons, self._has_holes = self.mask_to_polygons(self._mask)
        return self._has_holes

    def mask_to_polygons(self, mask: np.ndarray) -> tuple[list[np.ndarray], bool]:
        """The outlines through the centres of a mask's outer pixels, and whether it has holes."""
        pixels = np.ascontiguousarray(mask, dtype=np.uint8)
        contours, hierarchy = cv2.findContours(pixels, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        has_holes = hierarchy is not None and bool((hierarchy[0, :, 3] >= 0).any())
        polygons = [contour.reshape(-1) + 0.5 for contour in contours if len(contour) >= 3]
        return polygons, has_holes

    def polygons_to_mask(self, polygons: list[np.ndarray]) -> np.ndarray:
        return polygons_to_bitmask(polygons, self.height, self.width).astype(np.uint8)

    def area(self) -> int:
        """In pixels."""
        return int(self.mask.sum())

    def bbox(self) -> np.ndarray:
        """The tight box (x0, y0, x1, y1) in whole pixels; zeros for an empty mask."""
        x, y, width, height = cv2.boundingRect(self.mask)
        return np.array([x, y, x + width, y + height], dtype=np.float64)


def to_numpy(values: Any) -> np.ndarray:
    """An array from a tensor on any device, an array or a list."""
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def change_brightness(color: Any, factor: float) -> tuple[float, float, float]:
    """A colour with its lightness multiplied by 1 + factor; factor is -1 (black) to 1."""
    hue, lightness, saturation = colorsys.rgb_to_hls(*matplotlib.colors.to_rgb(color))
    lightness = min(max(lightness * (1 + factor), 0.0), 1.0)
    return colorsys.hls_to_rgb(hue, lightness, saturation)


def text_color(color: Any) -> tuple[float, float, float]:
    """A colour made light enough to be read on black."""
    hue, lightness, saturation = colorsys.rgb_to_hls(*matplotlib.colors.to_rgb(color))
    return colorsys.hls_to_rgb(hue, max(lightness, 0.75), saturation)


def jitter(color: Any) -> tuple[float, float, float]:
    """A colour a little off, drawn from numpy's random state, to tell objects of a class apart."""
    direction = np.random.standard_normal(3)
    shift = 0.3 * direction / max(float(np.linalg.norm(direction)), 1e-6)
    return tuple(np.clip(matplotlib.colors.to_rgb(color) + shift, 0, 1).tolist())


def inner_point(mask: np.ndarray) -> tuple[float, float, float]:
    """x, y of the point of a mask (H,W) that is farthest from its edge, and that distance.

    Unlike a centre of mass it lies inside of any shape.
    """
    padded = np.pad(mask.astype(np.uint8), 1)  # the border of the image is an edge
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, 3)
    y, x = np.unravel_index(distance.argmax(), distance.shape)
    return float(x) - 0.5, float(y) - 0.5, float(distance[y, x])


def grayscale(img: np.ndarray, keep: np.ndarray | None = None) -> np.ndarray:
    """RGB (H,W,3) without colours, except where the bool mask `keep` (H,W) is True."""
    gray = np.repeat(img.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)
    if keep is not None:
        gray[keep] = img[keep]
    return gray


def rotated_corners(box: Any) -> np.ndarray:
    """Corners (4,2) of (centre x, centre y, width, height, counter-clockwise degrees), as drawn.

    They begin at the upper left of the unrotated box and go down first.
    """
    x, y, width, height, angle = (float(value) for value in box)
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    offsets = np.array([[-width, -height], [-width, height], [width, height], [width, -height]]) / 2
    return offsets @ np.array([[cos, -sin], [sin, cos]]) + (x, y)  # y points down
