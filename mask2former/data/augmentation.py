"""What is done to a picture before the model sees it: one recipe per INPUT.DATASET_MAPPER_NAME.

What is drawn, and in which order, is detectron2's; geometry.py and colour.py do it.
"""

from collections.abc import Sequence

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import transforms as T

from mask2former.data.colour import PhotometricDistortion
from mask2former.data.sample_files import count_values
from mask2former.layers.frames import IMAGE_PADDING

_CROP_LENGTHS = (400, 500, 600)  # DETR's shortest edges of what is cropped
_NUM_TRIES = 10  # detectron2's, for a crop in which no class takes too much

Recipe = list[T.Augmentation | T.Transform]


def semantic_recipe(cfg: CfgNode) -> Recipe:
    """Resize, crop by classes, colour, flip: the official `mask_former_semantic`."""
    options = cfg.INPUT
    crop = CropByClassArea(
        options.CROP.TYPE,
        options.CROP.SIZE,
        options.CROP.SINGLE_CATEGORY_MAX_AREA,
        cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE,
    )
    return _standard_recipe(cfg, crop)


def instance_recipe(cfg: CfgNode) -> Recipe:
    """Resize, crop, colour, flip: the official `mask_former_instance`."""
    return _standard_recipe(cfg, RandomCrop(cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE))


def large_scale_jitter_recipe(cfg: CfgNode) -> Recipe:
    """Flip, resize by a random scale, crop or pad to a square: the official `coco_*_lsj`.

    Raises:
        ValueError: the scales or the size are not positive, or the wrong way round.
    """
    options = cfg.INPUT
    side, low, high = options.IMAGE_SIZE, options.MIN_SCALE, options.MAX_SCALE
    if side < 1 or not 0 < low <= high:
        raise ValueError(
            f"INPUT.IMAGE_SIZE={side}, MIN_SCALE={low}, MAX_SCALE={high}; set the size to 1 or "
            "more and the scales to 0 < MIN_SCALE <= MAX_SCALE"
        )
    return [
        *_flip(cfg),
        ResizeScale(low, high, side, side),
        # 0 in targets is no object and no segment.
        T.FixedSizeCrop((side, side), pad_value=IMAGE_PADDING, seg_pad_value=0),
    ]


def detr_recipe(cfg: CfgNode) -> Recipe:
    """Flip and resize, half of the time with a crop in between: the official `detr_panoptic`."""
    options = cfg.INPUT
    flip = _flip(cfg)
    resize = _resize(cfg)
    if not options.CROP.ENABLED:
        return [*flip, resize]
    crop = [
        T.ResizeShortestEdge(_CROP_LENGTHS, sample_style="choice"),
        RandomCrop(options.CROP.TYPE, options.CROP.SIZE),
    ]
    return [OneOf([*flip, resize], [*flip, *crop, resize])]


class OneOf(T.Augmentation):
    """One of two recipes, each half of the time."""

    def __init__(self, first: Sequence[T.Augmentation], second: Sequence[T.Augmentation]):
        super().__init__()
        self._init({"first": first, "second": second})

    def __call__(self, aug_input: T.AugInput) -> T.Transform:
        chosen = self.first if np.random.rand() > 0.5 else self.second
        return aug_input.apply_augmentations(chosen)


class RandomCrop(T.RandomCrop):
    """detectron2's, but of a very thin picture no crop becomes 0 pixels by rounding."""

    def get_crop_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        height, width = super().get_crop_size(image_size)
        return max(height, 1), max(width, 1)


class CropByClassArea(T.RandomCrop_CategoryAreaConstraint):
    """Draws and decides as detectron2's, but counts whole numbers instead of sorting doubles."""

    def __init__(
        self,
        crop_type: str,
        crop_size: Sequence[float],
        single_category_max_area: float,
        ignored_category: int,
    ):
        super().__init__(crop_type, crop_size, single_category_max_area, ignored_category)
        self.crop_aug = RandomCrop(crop_type, crop_size)

    def get_transform(self, image: np.ndarray, sem_seg: np.ndarray | None) -> T.Transform:
        """
        Args:
            image: only its size matters.
            sem_seg: classes, or what has a shape and gives classes for two slices.
        """
        if self.single_category_max_area >= 1:
            return self.crop_aug.get_transform(image)
        for _ in range(_NUM_TRIES):
            crop = self.crop_aug.get_transform(image)
            shown = sem_seg[crop.y0 : crop.y0 + crop.h, crop.x0 : crop.x0 + crop.w]
            classes, num_pixels = count_values(shown)
            num_pixels = num_pixels[classes != self.ignored_category]
            limit = num_pixels.sum() * self.single_category_max_area
            if len(num_pixels) > 1 and num_pixels.max() < limit:
                break
        return crop


class ResizeScale(T.ResizeScale):
    """detectron2's, but no side of a very thin picture becomes 0 pixels by rounding."""

    def get_transform(self, image: np.ndarray) -> T.Transform:
        found = super().get_transform(image)
        size = max(int(found.new_h), 1), max(int(found.new_w), 1)
        return T.ResizeTransform(found.h, found.w, *size, found.interp)


def test_recipe(cfg: CfgNode) -> Recipe:
    """Resize to MIN_SIZE_TEST, as detectron2 does; MIN_SIZE_TEST 0 keeps the picture's size."""
    options = cfg.INPUT
    if options.MIN_SIZE_TEST == 0:
        return []
    return [T.ResizeShortestEdge(options.MIN_SIZE_TEST, options.MAX_SIZE_TEST, "choice")]


def _standard_recipe(cfg: CfgNode, crop: T.Augmentation) -> Recipe:
    recipe = [_resize(cfg)]
    if cfg.INPUT.CROP.ENABLED:
        recipe.append(crop)
    if cfg.INPUT.COLOR_AUG_SSD:
        recipe.append(PhotometricDistortion(cfg.INPUT.FORMAT))
    return recipe + _flip(cfg)


def _resize(cfg: CfgNode) -> T.Augmentation:
    options = cfg.INPUT
    return T.ResizeShortestEdge(
        options.MIN_SIZE_TRAIN, options.MAX_SIZE_TRAIN, options.MIN_SIZE_TRAIN_SAMPLING
    )


def _flip(cfg: CfgNode) -> Recipe:
    direction = cfg.INPUT.RANDOM_FLIP
    if direction not in ("none", "horizontal", "vertical"):
        raise ValueError(f"INPUT.RANDOM_FLIP={direction!r}; set it to none, horizontal or vertical")
    if direction == "none":
        return []
    return [T.RandomFlip(horizontal=direction == "horizontal", vertical=direction == "vertical")]
