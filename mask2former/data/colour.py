"""SSD's photometric distortion (Liu et al. 2016, sec. 2.2), by tables of 256 entries.

H W size of the picture
"""

import random

import cv2
import numpy as np
from detectron2.data import transforms as T

_VALUES = np.arange(256)
_TO_HSV = {"RGB": cv2.COLOR_RGB2HSV, "BGR": cv2.COLOR_BGR2HSV}
_FROM_HSV = {"RGB": cv2.COLOR_HSV2RGB, "BGR": cv2.COLOR_HSV2BGR}


class PhotometricDistortion(T.Transform):
    """Random brightness, contrast, saturation and hue of a uint8 picture; nothing moves.

    To the bit what detectron2's ColorAugSSDTransform (official key INPUT.COLOR_AUG_SSD) makes of
    the same numbers of Python's `random`, which both draw when a picture is transformed. Each of
    the four happens half of the time, contrast before or behind the two of HSV space.

    Args:
        image_format: "RGB" or "BGR".
        brightness: the largest summand, of 255.
        contrast: the smallest and the largest factor of all channels.
        saturation: the smallest and the largest factor of the saturation.
        hue: the largest summand of the hue, of 180 (OpenCV's half degrees).

    Raises:
        ValueError: another image format.
    """

    def __init__(
        self,
        image_format: str,
        brightness: float = 32,
        contrast: tuple[float, float] = (0.5, 1.5),
        saturation: tuple[float, float] = (0.5, 1.5),
        hue: int = 18,
    ):
        if image_format not in _TO_HSV:
            raise ValueError(
                f"INPUT.FORMAT={image_format!r} with INPUT.COLOR_AUG_SSD; set it to RGB or BGR, or "
                "COLOR_AUG_SSD to False"
            )
        super().__init__()
        self._set_attributes(locals())

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        # (H,W,3) uint8 -> (H,W,3) uint8
        tables = []  # of neighbours that change each channel by itself: one look-up for all
        if _coin():
            tables.append(_linear(summand=random.uniform(-self.brightness, self.brightness)))
        contrast_first = _coin()
        if contrast_first and _coin():
            tables.append(_linear(factor=random.uniform(*self.contrast)))
        img = _look_up(img, tables)
        # Each its own way to HSV and back, which loses something, as in detectron2.
        if _coin():
            table = _linear(factor=random.uniform(*self.saturation))
            img = self._change_hsv(img, 1, table)
        if _coin():
            table = ((_VALUES + random.randint(-self.hue, self.hue)) % 180).astype(np.uint8)
            img = self._change_hsv(img, 0, table)
        if not contrast_first and _coin():
            img = _look_up(img, [_linear(factor=random.uniform(*self.contrast))])
        return img

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        return coords

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return segmentation

    def _change_hsv(self, img: np.ndarray, channel: int, table: np.ndarray) -> np.ndarray:
        hsv = cv2.cvtColor(np.ascontiguousarray(img), _TO_HSV[self.image_format])
        cv2.insertChannel(cv2.LUT(cv2.extractChannel(hsv, channel), table), hsv, channel)
        return cv2.cvtColor(hsv, _FROM_HSV[self.image_format])


def _linear(factor: float = 1.0, summand: float = 0.0) -> np.ndarray:
    """The table of value * factor + summand, in single precision and rounded down."""
    values = _VALUES.astype(np.float32) * np.float32(factor) + np.float32(summand)
    return values.clip(0, 255).astype(np.uint8)


def _look_up(img: np.ndarray, tables: list[np.ndarray]) -> np.ndarray:
    if not tables:
        return img
    table = tables[0]
    for following in tables[1:]:
        table = following[table]
    return cv2.LUT(np.ascontiguousarray(img), table)


def _coin() -> bool:
    return bool(random.randrange(2))
