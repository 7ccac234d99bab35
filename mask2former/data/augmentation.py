"""What is done to a picture before the model sees it: one recipe per INPUT.DATASET_MAPPER_NAME.

Geometry runs through detectron2's transforms, so that image and labels move together.
"""

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.projects.point_rend import ColorAugSSDTransform

IMAGE_PADDING = 128  # official value: mid grey, about the mean of the normalisation


def semantic_recipe(cfg: CfgNode) -> list[T.Augmentation | T.Transform]:
    """Resize, crop, colour, flip: the official `mask_former_semantic`."""
    size = cfg.INPUT
    recipe = [
        T.ResizeShortestEdge(size.MIN_SIZE_TRAIN, size.MAX_SIZE_TRAIN, size.MIN_SIZE_TRAIN_SAMPLING)
    ]
    if size.CROP.ENABLED:
        recipe.append(
            T.RandomCrop_CategoryAreaConstraint(
                size.CROP.TYPE,
                size.CROP.SIZE,
                size.CROP.SINGLE_CATEGORY_MAX_AREA,
                cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE,
            )
        )
    if size.COLOR_AUG_SSD:
        recipe.append(ColorAugSSDTransform(img_format=size.FORMAT))
    if size.RANDOM_FLIP != "none":
        vertical = size.RANDOM_FLIP == "vertical"
        recipe.append(T.RandomFlip(horizontal=not vertical, vertical=vertical))
    return recipe


def test_recipe(cfg: CfgNode) -> list[T.Augmentation]:
    """Resize to MIN_SIZE_TEST, as detectron2 does; MIN_SIZE_TEST 0 keeps the picture's size."""
    size = cfg.INPUT
    if size.MIN_SIZE_TEST == 0:
        return []
    return [T.ResizeShortestEdge(size.MIN_SIZE_TEST, size.MAX_SIZE_TEST, "choice")]


def pad_to_multiple(tensor: torch.Tensor, divisor: int, value: int) -> torch.Tensor:
    """(...,H,W) -> (...,H',W'): pad right and below with `value` to multiples of `divisor`."""
    if divisor <= 0:
        return tensor
    height, width = tensor.shape[-2:]
    return F.pad(tensor, (0, -width % divisor, 0, -height % divisor), value=value)
