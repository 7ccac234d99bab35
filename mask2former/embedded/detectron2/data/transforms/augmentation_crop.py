"""Augmentations that cut out a part of the image. They draw from numpy's global generator."""

from collections.abc import Sequence

import numpy as np
from fvcore.transforms.transform import CropTransform, PadTransform, Transform, TransformList

from .augmentation import Augmentation

__all__ = ["FixedSizeCrop", "RandomCrop", "RandomCrop_CategoryAreaConstraint"]


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


def _relative(
    image_size: Sequence[int], fractions: Sequence[float] | np.ndarray
) -> tuple[int, int]:
    return tuple(int(edge * part + 0.5) for edge, part in zip(image_size, fractions))


def _relative_range(image_size: Sequence[int], fractions: Sequence[float]) -> tuple[int, int]:
    least = np.asarray(fractions, dtype=np.float32)
    return _relative(image_size, least + np.random.rand(2) * (1 - least))


def _absolute(image_size: Sequence[int], pixels: Sequence[int]) -> tuple[int, int]:
    return tuple(min(edge, limit) for edge, limit in zip(image_size, pixels))


def _absolute_range(image_size: Sequence[int], pixels: Sequence[int]) -> tuple[int, int]:
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
