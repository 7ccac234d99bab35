"""A picture and its annotation, painted together: what is seen is what is labelled.

Coordinates are in pixels of the finished picture, x to the right and y down; colours are RGB.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

Polygon = np.ndarray  # (N,2) float
SUPERSAMPLE = 2
_SHIFT = 4  # fractional bits of the coordinates that OpenCV takes
_FAR = 20_000.0  # coordinates beyond this many pixels outside add nothing but overflow


@dataclass(frozen=True)
class Material:
    """How a surface looks: a colour, its irregularities, and how light falls on it."""

    colour: tuple[float, float, float]
    grain: float = 4.0  # grey levels of fine noise
    blotch: float = 6.0  # grey levels of coarse noise
    top: float = 1.0  # brightness at the upper edge
    bottom: float = 1.0  # brightness at the lower edge
    left: float = 1.0
    right: float = 1.0

    def lit(self, factor: float) -> "Material":
        red, green, blue = self.colour
        return Material((red * factor, green * factor, blue * factor), self.grain, self.blotch)


Part = tuple[Polygon, Material]


@dataclass(frozen=True)
class Camera:
    """A pinhole camera above a flat street: X metres right, Y metres up, Z metres ahead."""

    focal: float  # pixels
    centre_x: float  # of the vanishing point
    horizon_y: float
    height: float  # metres above the ground

    def project(self, points: Sequence[Sequence[float]]) -> Polygon:
        """(N,3) metres -> (N,2) pixels. Points nearer than half a metre are moved there."""
        x, y, z = np.asarray(points, dtype=np.float64).T
        z = np.maximum(z, 0.5)
        return np.stack(
            [
                self.centre_x + self.focal * x / z,
                self.horizon_y + self.focal * (self.height - y) / z,
            ],
            axis=1,
        )

    def upright(self, x: float, z: float, outline: np.ndarray) -> Polygon:
        """(N,2) metres (right, up) in the plane that faces us at (x, z) -> (N,2) pixels."""
        outline = np.asarray(outline, dtype=np.float64)
        depth = np.full(len(outline), z)
        return self.project(np.stack([x + outline[:, 0], outline[:, 1], depth], axis=1))


class Canvas:
    """Objects are added from far to near; each hides what it covers, in picture and labels."""

    def __init__(self, height: int, width: int, rng: np.random.Generator):
        self.height, self.width = height, width
        self.rng = rng
        self.objects: list[tuple[str, list[list[int]]]] = []
        shape = (height * SUPERSAMPLE, width * SUPERSAMPLE)
        self.image = np.zeros((*shape, 3), np.float32)
        self._grain = rng.standard_normal(shape, dtype=np.float32)
        self._blotch = self.smooth_noise(cells=32) * 0.6 + self.smooth_noise(cells=90) * 0.6

    def smooth_noise(self, cells: int) -> np.ndarray:
        """Noise of unit variance at supersampled size, about `cells` bumps across the width."""
        rows = max(2, cells * self.height // self.width)
        coarse = self.rng.standard_normal((rows, cells), dtype=np.float32)
        size = (self.width * SUPERSAMPLE, self.height * SUPERSAMPLE)
        return cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)

    def paint(self, polygon: Polygon, material: Material) -> None:
        """Colour an area without labelling it: a detail of the object below."""
        self._fill(polygon, material)

    def shade(self, polygon: Polygon, factor: float) -> None:
        """Darken (or lighten) an area: a shadow."""
        mask, rows, columns = self._mask(polygon)
        if mask.any():
            region = self.image[rows, columns]
            region[mask] *= factor

    def add(self, label: str, parts: Sequence[Part], min_area: float = 10.0) -> bool:
        """Paint `parts` as one object and record the outline of what lies inside the picture.

        Returns whether there was enough of it to label (`min_area` pixels); if not, nothing is
        painted either.
        """
        outline = self._outline([polygon for polygon, _ in parts], min_area)
        if outline is None:
            return False
        for polygon, material in parts:
            self._fill(polygon, material)
        self.objects.append((label, outline))
        return True

    def finish(self, gain: Sequence[float], noise: float) -> np.ndarray:
        """The picture (H,W,3) uint8, under light of `gain` per channel, with sensor noise."""
        image = cv2.resize(self.image, (self.width, self.height), interpolation=cv2.INTER_AREA)
        image = image * np.asarray(gain, np.float32)
        image += self.rng.standard_normal(image.shape, dtype=np.float32) * noise
        return np.clip(image, 0, 255).round().astype(np.uint8)

    def _mask(self, polygon: Polygon) -> tuple[np.ndarray, slice, slice]:
        """The polygon's supersampled pixels within its bounding box: mask, rows, columns."""
        points = np.clip(polygon, -_FAR, _FAR) * SUPERSAMPLE
        limit = np.array(self.image.shape[1::-1])
        low = np.clip(np.floor(points.min(0)), 0, limit).astype(int)
        high = np.clip(np.ceil(points.max(0)) + 1, low, limit).astype(int)
        mask = np.zeros((high - low)[::-1], np.uint8)
        if mask.size:
            fixed = ((points - low - 0.5) * 2**_SHIFT).round().astype(np.int32)
            cv2.fillPoly(mask, [fixed], 1, shift=_SHIFT)
        return mask.astype(bool), slice(low[1], high[1]), slice(low[0], high[0])

    def _fill(self, polygon: Polygon, material: Material) -> None:
        mask, rows, columns = self._mask(polygon)
        if not mask.any():
            return
        value = material.grain * self._grain[rows, columns]
        value += material.blotch * self._blotch[rows, columns]
        height, width = mask.shape
        colour = np.array(material.colour, np.float32)
        if not material.top == material.bottom == material.left == material.right == 1.0:
            light = np.linspace(material.top, material.bottom, height, dtype=np.float32)
            side = np.linspace(material.left, material.right, width, dtype=np.float32)
            colour = (light[:, None] * side)[..., None] * colour
        np.copyto(self.image[rows, columns], colour + value[..., None], where=mask[..., None])

    def _outline(self, polygons: Sequence[Polygon], min_area: float) -> list[list[int]] | None:
        """The outer boundary of the union's largest piece, as pixel coordinates."""
        pieces = [self._mask(polygon) for polygon in polygons]
        top = min(rows.start for _, rows, _ in pieces)
        left = min(columns.start for _, _, columns in pieces)
        bottom = max(rows.stop for _, rows, _ in pieces)
        right = max(columns.stop for _, _, columns in pieces)
        union = np.zeros((bottom - top, right - left), np.uint8)
        for mask, rows, columns in pieces:
            inside = slice(rows.start - top, rows.stop - top)
            union[inside, columns.start - left : columns.stop - left] |= mask.view(np.uint8)
        if not union.size:
            return None
        contours, _ = cv2.findContours(union, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        if not contours:
            return None
        largest = max(contours, key=cv2.contourArea)
        if cv2.contourArea(largest) < min_area * SUPERSAMPLE**2:
            return None
        contour = cv2.approxPolyDP(largest, 0.6, closed=True)[:, 0]
        points = ((contour + (left + 0.5, top + 0.5)) / SUPERSAMPLE - 0.5).round().astype(int)
        return points.tolist()
