"""The six recipes from their keys against detectron2's transforms applied one after the other."""

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.data.detection_utils import read_image
from detectron2.projects.point_rend import ColorAugSSDTransform
from mapper_inputs import made_sample, set_recipe

from mask2former.data import build_mapper
from mask2former.data.dataset_mapper import RECIPES

IGNORE = 255


class _Either(T.Augmentation):
    def __init__(self, first: Sequence[T.Augmentation], second: Sequence[T.Augmentation]):
        super().__init__()
        self.first, self.second = first, second

    def __call__(self, aug_input: T.AugInput) -> T.Transform:
        return aug_input.apply_augmentations(self.first if np.random.rand() > 0.5 else self.second)


def _official(cfg: CfgNode, name: str) -> list[T.Augmentation]:
    """What the official mapper of this name does."""
    options = cfg.INPUT
    flip = T.RandomFlip(horizontal=True, vertical=False)
    resize = T.ResizeShortestEdge(options.MIN_SIZE_TRAIN, options.MAX_SIZE_TRAIN, "choice")
    crop = T.RandomCrop(options.CROP.TYPE, options.CROP.SIZE)
    side = options.IMAGE_SIZE
    if name.endswith("lsj"):
        scale = T.ResizeScale(options.MIN_SCALE, options.MAX_SCALE, side, side)
        return [flip, scale, T.FixedSizeCrop((side, side), pad_value=128.0, seg_pad_value=0)]
    if name == "detr_panoptic":
        first = T.ResizeShortestEdge([400, 500, 600], sample_style="choice")
        return [_Either([flip, resize], [flip, first, crop, resize])]
    if name != "mask_former_instance":
        limit = options.CROP.SINGLE_CATEGORY_MAX_AREA
        crop = T.RandomCrop_CategoryAreaConstraint(
            options.CROP.TYPE, options.CROP.SIZE, limit, IGNORE
        )
    return [resize, crop, ColorAugSSDTransform(img_format=options.FORMAT), flip]


def _pad(array: np.ndarray, divisor: int, value: int) -> np.ndarray:
    sides = [(0, -length % divisor if divisor > 0 else 0) for length in array.shape[:2]]
    rest = [(0, 0)] * (array.ndim - 2)
    return np.pad(array, sides + rest, constant_values=value)


def _one_by_one(cfg: CfgNode, name: str, sample: dict) -> tuple[np.ndarray, np.ndarray, list]:
    """The picture, the classes, and the masks of segments, all padded."""
    image = read_image(sample["file_name"], cfg.INPUT.FORMAT)
    label = read_image(sample["sem_seg_file_name"]).astype(np.float64)
    colors = read_image(sample["pan_seg_file_name"], "RGB")
    if "panoptic" in name:  # classes of segments, for the crop
        ids = colors.astype(int) @ [1, 256, 65536]
        label = np.full(ids.shape, IGNORE, np.float64)
        for segment in sample["segments_info"]:
            label[ids == segment["id"]] = segment["category_id"]
    augmented = T.AugInput(image, sem_seg=label)
    transforms = augmented.apply_augmentations(_official(cfg, name))
    ids = transforms.apply_segmentation(colors).astype(int) @ [1, 256, 65536]
    divisor = cfg.INPUT.SIZE_DIVISIBILITY
    masks = [ids == s["id"] for s in sample["segments_info"] if not s["iscrowd"]]
    return (
        _pad(augmented.image, divisor, 128),
        _pad(augmented.sem_seg, divisor, IGNORE),
        [_pad(mask, divisor, 0) for mask in masks],
    )


@pytest.mark.parametrize(
    "name, area",
    [*((n, 1.0) for n in RECIPES), ("mask_former_semantic", 0.5), ("mask_former_panoptic", 0.5)],
)
def test_every_pixel_and_draw(cfg: CfgNode, tmp_path: Path, name: str, area: float):
    set_recipe(cfg, name)
    cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA = area
    mapper = build_mapper(cfg, is_train=True)
    for picture in range(3):
        sample = made_sample(tmp_path, picture)
        for seed in range(12):
            np.random.seed(seed)
            random.seed(seed)
            mapped = mapper(sample)
            state = np.random.rand(), random.random()
            np.random.seed(seed)
            random.seed(seed)
            image, label, masks = _one_by_one(cfg, name, sample)
            assert state == (np.random.rand(), random.random())
            np.testing.assert_array_equal(mapped["image"].permute(1, 2, 0), image)
            found = mapped["instances"].gt_masks
            if "semantic" in name:
                np.testing.assert_array_equal(mapped["sem_seg"], label)
                found = torch.where(found.any(0), mapped["sem_seg"], IGNORE)
                np.testing.assert_array_equal(found, label)
            if "panoptic" in name:
                np.testing.assert_array_equal(found, masks)
