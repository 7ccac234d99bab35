"""Photometric distortion of SSD (Liu et al. 2016, sec. 2.2)."""

import random

import cv2
import numpy as np
from fvcore.transforms.transform import Transform


class ColorAugSSDTransform(Transform):
    """Random brightness, contrast, saturation and hue of a uint8 image; geometry stays.

    Each of the four happens with probability 1/2, contrast before or behind the two of HSV space.
    Randomness comes from Python's `random` at the time of `apply_image`.

    Args:
        img_format: "BGR" or "RGB".
        brightness_delta: the largest summand, of 255.
        contrast_low: the smallest factor of all channels.
        contrast_high: the largest.
        saturation_low: the smallest factor of the saturation.
        saturation_high: the largest.
        hue_delta: the largest summand of the hue, of 180 (OpenCV's half degrees).

    Raises:
        ValueError: another image format.
    """

    def __init__(
        self,
        img_format: str,
        brightness_delta: float = 32,
        contrast_low: float = 0.5,
        contrast_high: float = 1.5,
        saturation_low: float = 0.5,
        saturation_high: float = 1.5,
        hue_delta: int = 18,
    ):
        if img_format not in ("BGR", "RGB"):
            raise ValueError(f"image format {img_format!r}; colour augmentation takes BGR or RGB")
        super().__init__()
        self.is_rgb = img_format == "RGB"
        self.brightness_delta = brightness_delta
        self.contrast_low = contrast_low
        self.contrast_high = contrast_high
        self.saturation_low = saturation_low
        self.saturation_high = saturation_high
        self.hue_delta = hue_delta

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        return coords

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return segmentation

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        # (H,W,3) uint8 -> (H,W,3) uint8
        img = img[:, :, ::-1] if self.is_rgb else img
        img = self.brightness(img)
        contrast_first = _coin()
        if contrast_first:
            img = self.contrast(img)
        img = self.hue(self.saturation(img))
        if not contrast_first:
            img = self.contrast(img)
        return np.ascontiguousarray(img[:, :, ::-1]) if self.is_rgb else img

    def convert(self, img: np.ndarray, alpha: float = 1, beta: float = 0) -> np.ndarray:
        """img * alpha + beta, cut off at 0 and 255."""
        return np.clip(img.astype(np.float32) * alpha + beta, 0, 255).astype(np.uint8)

    def brightness(self, img: np.ndarray) -> np.ndarray:
        if not _coin():
            return img
        return self.convert(img, beta=random.uniform(-self.brightness_delta, self.brightness_delta))

    def contrast(self, img: np.ndarray) -> np.ndarray:
        if not _coin():
            return img
        return self.convert(img, alpha=random.uniform(self.contrast_low, self.contrast_high))

    def saturation(self, img: np.ndarray) -> np.ndarray:  # BGR -> BGR
        if not _coin():
            return img
        factor = random.uniform(self.saturation_low, self.saturation_high)
        hsv = _to_hsv(img)
        hsv[:, :, 1] = self.convert(hsv[:, :, 1], alpha=factor)
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)

    def hue(self, img: np.ndarray) -> np.ndarray:  # BGR -> BGR
        if not _coin():
            return img
        hsv = _to_hsv(img)
        shift = random.randint(-self.hue_delta, self.hue_delta)
        hsv[:, :, 0] = (hsv[:, :, 0].astype(np.int64) + shift) % 180
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)


def _coin() -> bool:
    return bool(random.randrange(2))


def _to_hsv(img: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(np.ascontiguousarray(img), cv2.COLOR_BGR2HSV)
