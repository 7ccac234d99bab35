"""Augmentations. All draw from numpy's global generator, so that one seed fixes a sample."""

import sys
from collections.abc import Sequence

import numpy as np
from fvcore.transforms.transform import (
    BlendTransform,
    HFlipTransform,
    NoOpTransform,
    Transform,
    VFlipTransform,
)
from PIL import Image

from .augmentation import AugInput, Augmentation, AugmentationOrTransform, as_augmentation
from .augmentation_crop import FixedSizeCrop, RandomCrop, RandomCrop_CategoryAreaConstraint
from .transform import ResizeTransform

__all__ = [
    "FixedSizeCrop",
    "RandomApply",
    "RandomBrightness",
    "RandomContrast",
    "RandomCrop",
    "RandomCrop_CategoryAreaConstraint",
    "RandomFlip",
    "RandomLighting",
    "RandomSaturation",
    "Resize",
    "ResizeScale",
    "ResizeShortestEdge",
]


class RandomApply(Augmentation):
    """Apply an augmentation or a transform with probability `prob`."""

    def __init__(self, tfm_or_aug: AugmentationOrTransform, prob: float = 0.5) -> None:
        super().__init__()
        if not 0.0 <= prob <= 1.0:
            raise ValueError(f"prob={prob}; a probability lies in [0, 1]")
        self.aug = as_augmentation(tfm_or_aug)
        self.prob = prob

    def get_transform(self, *args) -> Transform:
        return self.aug.get_transform(*args) if self._happens() else NoOpTransform()

    def __call__(self, aug_input: AugInput) -> Transform:
        return self.aug(aug_input) if self._happens() else NoOpTransform()

    def _happens(self) -> bool:
        return bool(self._rand_range() < self.prob)


class RandomFlip(Augmentation):
    """Flip with probability `prob`, either horizontally or vertically."""

    def __init__(
        self, prob: float = 0.5, *, horizontal: bool = True, vertical: bool = False
    ) -> None:
        super().__init__()
        if horizontal == vertical:
            raise ValueError(
                f"horizontal={horizontal} and vertical={vertical}; choose one of them, "
                "and use two RandomFlips for both"
            )
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        if self._rand_range() >= self.prob:
            return NoOpTransform()
        height, width = image.shape[:2]
        return HFlipTransform(width) if self.horizontal else VFlipTransform(height)


class Resize(Augmentation):
    """Resize to a fixed (height, width), or to a square if one number is given."""

    def __init__(self, shape: int | tuple[int, int], interp: int = Image.BILINEAR) -> None:
        super().__init__()
        shape = (shape, shape) if isinstance(shape, int) else tuple(shape)
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        return ResizeTransform(*image.shape[:2], *self.shape, self.interp)


class ResizeShortestEdge(Augmentation):
    """Resize so that the shorter edge has a random length and the longer at most `max_size`.

    Args:
        short_edge_length: (min, max) if `sample_style` is "range", else the lengths to
            choose from. A length of 0 leaves the image alone.
        max_size: bound on the longer edge; it wins over the shorter edge's length.
        sample_style: "range" or "choice".
        interp: a Pillow resampling constant.
    """

    def __init__(
        self,
        short_edge_length: int | Sequence[int],
        max_size: int = sys.maxsize,
        sample_style: str = "range",
        interp: int = Image.BILINEAR,
    ) -> None:
        super().__init__()
        if sample_style not in ("range", "choice"):
            raise ValueError(f"sample_style={sample_style!r}; set it to 'range' or 'choice'")
        self.is_range = sample_style == "range"
        if isinstance(short_edge_length, int):
            short_edge_length = (short_edge_length, short_edge_length)
        if self.is_range and len(short_edge_length) != 2:
            raise ValueError(
                f"short_edge_length={short_edge_length} with sample_style 'range'; "
                "give (min, max), or use sample_style 'choice'"
            )
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        height, width = image.shape[:2]
        if self.is_range:
            low, high = self.short_edge_length
            length = np.random.randint(low, high + 1)
        else:
            length = np.random.choice(self.short_edge_length)
        if length == 0:
            return NoOpTransform()
        new_size = self.get_output_shape(height, width, length, self.max_size)
        return ResizeTransform(height, width, *new_size, self.interp)

    @staticmethod
    def get_output_shape(
        oldh: int, oldw: int, short_edge_length: int, max_size: int
    ) -> tuple[int, int]:
        """(height, width) after the resize."""
        short = float(short_edge_length)
        scale = short / min(oldh, oldw)
        # the shorter edge is set, not multiplied: it has to come out exactly
        new_h, new_w = (short, scale * oldw) if oldh < oldw else (scale * oldh, short)
        longest = max(new_h, new_w)
        if longest > max_size:
            shrink = max_size / longest
            new_h, new_w = new_h * shrink, new_w * shrink
        return int(new_h + 0.5), int(new_w + 0.5)


class ResizeScale(Augmentation):
    """Fit the image into a target size times a random scale, with its aspect ratio kept.

    Large scale jitter is this followed by FixedSizeCrop (Ghiasi et al., Simple Copy-Paste).
    """

    def __init__(
        self,
        min_scale: float,
        max_scale: float,
        target_height: int,
        target_width: int,
        interp: int = Image.BILINEAR,
    ) -> None:
        super().__init__()
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        scale = np.random.uniform(self.min_scale, self.max_scale)
        height, width = image.shape[:2]
        ratio = min(self.target_height * scale / height, self.target_width * scale / width)
        new_h, new_w = (int(np.round(edge * ratio)) for edge in (height, width))
        return ResizeTransform(height, width, new_h, new_w, self.interp)


class _RandomBlend(Augmentation):
    """Blend with another picture: weight 1 keeps the image, 0 gives the other, 2 exaggerates."""

    def __init__(self, intensity_min: float, intensity_max: float) -> None:
        super().__init__()
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        weight = np.random.uniform(self.intensity_min, self.intensity_max)
        return BlendTransform(self._other(image), src_weight=1 - weight, dst_weight=weight)

    def _other(self, image: np.ndarray) -> float | np.ndarray:
        raise NotImplementedError


class RandomBrightness(_RandomBlend):
    """Blend with black by a weight drawn from [intensity_min, intensity_max]."""

    def _other(self, image: np.ndarray) -> int:
        return 0


class RandomContrast(_RandomBlend):
    """Blend with the mean of the image by a weight drawn from [intensity_min, intensity_max]."""

    def _other(self, image: np.ndarray) -> float:
        return image.mean()


class RandomSaturation(_RandomBlend):
    """Blend an RGB image with its grey version (BT.601) by a weight drawn from the range."""

    def _other(self, image: np.ndarray) -> np.ndarray:
        if image.shape[-1] != 3:
            raise ValueError(f"saturation needs an RGB image, got shape {image.shape}")
        return image.dot([0.299, 0.587, 0.114])[:, :, None]


class RandomLighting(Augmentation):
    """AlexNet's colour noise along the principal components of ImageNet's RGB values.

    Args:
        scale: standard deviation of the noise in units of the components.
    """

    # Krizhevsky et al. 2012, sec. 4.1
    eigen_vecs = np.array(
        [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
    )
    eigen_vals = np.array([0.2175, 0.0188, 0.0045])

    def __init__(self, scale: float) -> None:
        super().__init__()
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        if image.shape[-1] != 3:
            raise ValueError(f"lighting needs an RGB image, got shape {image.shape}")
        weights = np.random.normal(scale=self.scale, size=3)
        noise = self.eigen_vecs.dot(weights * self.eigen_vals)
        return BlendTransform(noise, src_weight=1.0, dst_weight=1.0)
