"""From a dataset dict (file names) to the model's input: one mapper, a table of recipes.

H W the size of the transformed and padded image
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import detection_utils
from detectron2.data import transforms as T

from mask2former.data.augmentation import (
    IMAGE_PADDING,
    pad_to_multiple,
    semantic_recipe,
    test_recipe,
)
from mask2former.data.errors import SampleError
from mask2former.data.targets import SemanticTargets

logger = logging.getLogger(__name__)


def _semantic_targets(cfg: CfgNode) -> SemanticTargets:
    head = cfg.MODEL.SEM_SEG_HEAD
    return SemanticTargets(num_classes=head.NUM_CLASSES, ignore_value=head.IGNORE_VALUE)


# INPUT.DATASET_MAPPER_NAME -> (cfg -> augmentations, cfg -> target builder)
RECIPES: dict[str, tuple[Callable[[CfgNode], list], Callable[[CfgNode], Any]]] = {
    "mask_former_semantic": (semantic_recipe, _semantic_targets),
}


class MaskFormerDatasetMapper:
    """Reads the files of a dataset dict, transforms image and labels, builds the targets.

    A call takes a dataset dict and returns a new one, with
        image: uint8 (3,H,W), in INPUT.FORMAT order
        height, width: the size of the file, to which predictions are scaled back
        in training also what the target builder adds: sem_seg, instances

    Raises:
        SampleError: a file is missing, truncated, of another size than its annotation says, or
            holds labels outside the classes.
    """

    @configurable
    def __init__(
        self,
        is_train: bool = True,
        *,
        augmentations: Sequence[T.Augmentation | T.Transform],
        image_format: str,
        targets: SemanticTargets | None,
        size_divisibility: int = -1,
    ):
        """
        Args:
            is_train: with targets; without, they are neither read nor built.
            augmentations: applied in this order.
            image_format: a PIL mode, or "BGR".
            targets: builds the targets; None without training.
            size_divisibility: pad training images to a multiple of this; -1: do not pad.
        """
        self.is_train = is_train
        self.augmentations = list(augmentations)
        self.image_format = image_format
        self.targets = targets
        self.size_divisibility = size_divisibility
        logger.info(f"Augmentations in {'training' if is_train else 'test'}: {augmentations}")

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict:
        if not is_train:
            return {
                "is_train": False,
                "augmentations": test_recipe(cfg),
                "image_format": cfg.INPUT.FORMAT,
                "targets": None,
            }
        name = cfg.INPUT.DATASET_MAPPER_NAME
        if name not in RECIPES:
            raise ValueError(
                f"INPUT.DATASET_MAPPER_NAME={name!r} is not known; choose one of {list(RECIPES)}"
            )
        recipe, targets = RECIPES[name]
        return {
            "is_train": True,
            "augmentations": recipe(cfg),
            "image_format": cfg.INPUT.FORMAT,
            "targets": targets(cfg),
            "size_divisibility": cfg.INPUT.SIZE_DIVISIBILITY,
        }

    def __call__(self, dataset_dict: dict) -> dict:
        sample = dict(dataset_dict)
        sample.pop("annotations", None)
        image = _read(sample["file_name"], self.image_format)  # (H0,W0,3)
        height, width = image.shape[:2]
        expected = sample.setdefault("height", height), sample.setdefault("width", width)
        if (height, width) != expected:
            raise SampleError(
                f"{sample['file_name']}: the picture has {height}x{width} pixels, its annotation "
                f"says {expected[0]}x{expected[1]}; one of the two belongs to another file"
            )
        if not self.is_train:
            augmented = T.AugInput(image)
            augmented.apply_augmentations(self.augmentations)
            sample["image"] = _channels_first(augmented.image)
            return sample

        label = self.targets.read(dataset_dict, partial(_read, image_format=None))
        if label.shape != (height, width):
            raise SampleError(
                f"{sample['file_name']}: the picture has {height}x{width} pixels, its labels "
                f"{label.shape[0]}x{label.shape[1]}; one of the two belongs to another file"
            )
        # As double, like the official mapper: detectron2 resizes uint8 by another rule for the
        # nearest neighbour (Pillow's) than floats (torch's), and single precision rounds apart.
        augmented = T.AugInput(image, sem_seg=label.astype(np.float64))
        augmented.apply_augmentations(self.augmentations)
        label = torch.from_numpy(np.ascontiguousarray(augmented.sem_seg)).long()
        pad = self.size_divisibility
        sample["image"] = pad_to_multiple(_channels_first(augmented.image), pad, IMAGE_PADDING)
        sample.update(self.targets.build(pad_to_multiple(label, pad, self.targets.ignore_value)))
        return sample


# The official name of what this is with INPUT.DATASET_MAPPER_NAME mask_former_semantic.
MaskFormerSemanticDatasetMapper = MaskFormerDatasetMapper


def build_mapper(cfg: CfgNode, is_train: bool) -> MaskFormerDatasetMapper:
    """The mapper that INPUT.DATASET_MAPPER_NAME names, or the one for testing.

    Raises:
        ValueError: there is none of this name.
    """
    return MaskFormerDatasetMapper(cfg, is_train)


def _channels_first(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def _read(path: str, image_format: str | None) -> np.ndarray:
    try:
        return detection_utils.read_image(path, format=image_format)
    except FileNotFoundError as error:
        raise SampleError(f"{path}: no such file; the dataset's list names it") from error
    except (OSError, SyntaxError) as error:  # Pillow raises either on a broken file
        reason = error.__cause__ or error  # the embedded detectron2 has made a sentence of it
        raise SampleError(
            f"{path}: not a whole picture ({reason}); copy or download this file again"
        ) from error
