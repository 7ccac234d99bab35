"""Augmentations. All draw from numpy's global generator, so that one seed fixes a sample."""

import sys
from collections.abc import Sequence

import numpy as np
from fvcore.transforms.transform import (
    BlendTransform,
    CropTransform,
    HFlipTransform,
    NoOpTransform,
    PadTransform,
    Transform,
    TransformList,
    VFlipTransform,
)
from PIL import Image

from .augmentation import Augmentation, AugmentationOrTransform, as_augmentation
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

    def __call__(self, aug_input) -> Transform:
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


class FixedSizeCrop(Augmentation):
    """Crop at a random place to at most `crop_size`, then pad right and below up to it.

    Args:
        crop_size: (height, width).
        pad: whether to pad; without it a smaller image stays smaller.
        pad_value, seg_pad_value: what the image and the segmentation are padded with.
    """

    def __init__(
        self,
        crop_size: tuple[int, int],
        pad: bool = True,
        pad_value: float = 128.0,
        seg_pad_value: int = 255,
    ) -> None:
        super().__init__()
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> TransformList:
        size = np.asarray(image.shape[:2])
        target = np.asarray(self.crop_size)
        # one number for both axes: the crop slides along the diagonal of the free room
        room = np.maximum(size - target, 0)
        top, left = np.round(room * np.random.uniform(0.0, 1.0)).astype(int).tolist()
        height, width = size.tolist()
        crop_h, crop_w = self.crop_size
        transforms = [CropTransform(left, top, crop_w, crop_h, width, height)]
        if self.pad:
            kept_h, kept_w = np.minimum(size, target).tolist()
            transforms.append(
                PadTransform(
                    0,
                    0,
                    crop_w - kept_w,
                    crop_h - kept_h,
                    kept_w,
                    kept_h,
                    self.pad_value,
                    self.seg_pad_value,
                )
            )
        return TransformList(transforms)


class RandomCrop(Augmentation):
    """Crop a rectangle at a random place.

    Args:
        crop_type, crop_size:
            "relative", fractions (h, w) of the image;
            "relative_range", fractions drawn from [h, 1] and [w, 1];
            "absolute", pixels (h, w), at most the image;
            "absolute_range", height and width drawn from [min, max] pixels, at most the image.
    """

    def __init__(self, crop_type: str, crop_size: Sequence[float]) -> None:
        super().__init__()
        if crop_type not in _CROP_SIZE:
            raise ValueError(f"crop_type={crop_type!r}; set it to one of {', '.join(_CROP_SIZE)}")
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        height, width = image.shape[:2]
        crop_h, crop_w = self.get_crop_size((height, width))
        if crop_h > height or crop_w > width:
            raise ValueError(f"a crop of {crop_h}x{crop_w} does not fit into {height}x{width}")
        top = np.random.randint(height - crop_h + 1)
        left = np.random.randint(width - crop_w + 1)
        return CropTransform(left, top, crop_w, crop_h)

    def get_crop_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of the crop for an image of (height, width)."""
        return _CROP_SIZE[self.crop_type](image_size, self.crop_size)


def _relative(image_size, fractions) -> tuple[int, int]:
    return tuple(int(edge * part + 0.5) for edge, part in zip(image_size, fractions))


def _relative_range(image_size, fractions) -> tuple[int, int]:
    least = np.asarray(fractions, dtype=np.float32)
    return _relative(image_size, least + np.random.rand(2) * (1 - least))


def _absolute(image_size, pixels) -> tuple[int, int]:
    return tuple(min(edge, limit) for edge, limit in zip(image_size, pixels))


def _absolute_range(image_size, pixels) -> tuple[int, int]:
    low, high = pixels
    if low > high:
        raise ValueError(f"crop_size={pixels} with 'absolute_range'; give (min, max)")
    return tuple(int(np.random.randint(min(e, low), min(e, high) + 1)) for e in image_size)


_CROP_SIZE = {
    "relative": _relative,
    "relative_range": _relative_range,
    "absolute": _absolute,
    "absolute_range": _absolute_range,
}


class RandomCrop_CategoryAreaConstraint(Augmentation):
    """RandomCrop in which no category covers more than a fraction of the crop, if possible.

    Ten crops are tried; the last one is taken if none will do.

    Args:
        crop_type, crop_size: as in RandomCrop.
        single_category_max_area: the largest fraction of one category among the labelled pixels.
        ignored_category: value in the segmentation that is no category.
    """

    num_tries = 10

    def __init__(
        self,
        crop_type: str,
        crop_size: Sequence[float],
        single_category_max_area: float = 1.0,
        ignored_category: int | None = None,
    ) -> None:
        super().__init__()
        self.crop_aug = RandomCrop(crop_type, crop_size)
        self._init(locals())

    def get_transform(self, image: np.ndarray, sem_seg: np.ndarray) -> Transform:
        if self.single_category_max_area >= 1.0:
            return self.crop_aug.get_transform(image)
        if sem_seg is None:
            raise ValueError("a crop bounded by category area needs sem_seg; the input has none")
        for _ in range(self.num_tries):
            crop = self.crop_aug.get_transform(sem_seg)
            if self._is_mixed(crop.apply_segmentation(sem_seg)):
                break
        return crop

    def _is_mixed(self, sem_seg: np.ndarray) -> bool:
        labels, num_pixels = np.unique(sem_seg, return_counts=True)
        if self.ignored_category is not None:
            num_pixels = num_pixels[labels != self.ignored_category]
        if len(num_pixels) < 2:
            return False
        return num_pixels.max() < num_pixels.sum() * self.single_category_max_area


class _RandomBlend(Augmentation):
    """Blend with another picture: weight 1 keeps the image, 0 gives the other, 2 exaggerates."""

    def __init__(self, intensity_min: float, intensity_max: float) -> None:
        super().__init__()
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        weight = np.random.uniform(self.intensity_min, self.intensity_max)
        return BlendTransform(self._other(image), src_weight=1 - weight, dst_weight=weight)

    def _other(self, image: np.ndarray):
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
