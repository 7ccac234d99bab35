"""From a dataset dict (file names) to the model's input: one mapper, a table of recipes.

The draw comes first (geometry.py), the work later: picture and targets are transformed where the
drawn crop shows them.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import transforms as T

from mask2former.data.augmentation import (
    Recipe,
    detr_recipe,
    instance_recipe,
    large_scale_jitter_recipe,
    semantic_recipe,
    test_recipe,
)
from mask2former.data.compact import plain
from mask2former.data.geometry import draw
from mask2former.data.sample_files import PictureFile, read_image
from mask2former.data.targets import (
    InstanceTargets,
    PanopticTargets,
    SemanticTargets,
    Targets,
    check_size,
)

logger = logging.getLogger(__name__)

_FORMATS = ("RGB", "BGR", "L", "YUV-BT.601")  # those that detectron2 reads


def _semantic_targets(cfg: CfgNode) -> SemanticTargets:
    head = cfg.MODEL.SEM_SEG_HEAD
    return SemanticTargets(num_classes=head.NUM_CLASSES, ignore_value=head.IGNORE_VALUE)


def _instance_targets(cfg: CfgNode) -> InstanceTargets:
    return InstanceTargets(
        num_classes=cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, drop_empty=cfg.INPUT.DROP_EMPTY_MASKS
    )


def _seen_instance_targets(cfg: CfgNode) -> InstanceTargets:
    return replace(_instance_targets(cfg), drop_empty=True)


def _panoptic_targets(cfg: CfgNode) -> PanopticTargets:
    head, crop = cfg.MODEL.SEM_SEG_HEAD, cfg.INPUT.CROP
    return PanopticTargets(
        num_classes=head.NUM_CLASSES,
        ignore_value=head.IGNORE_VALUE,
        drop_empty=cfg.INPUT.DROP_EMPTY_MASKS,
        with_class_map=crop.ENABLED and crop.SINGLE_CATEGORY_MAX_AREA < 1,
    )


# INPUT.DATASET_MAPPER_NAME -> (cfg -> augmentations, cfg -> target builder)
RECIPES: dict[str, tuple[Callable[[CfgNode], Recipe], Callable[[CfgNode], Targets]]] = {
    "mask_former_semantic": (semantic_recipe, _semantic_targets),
    "mask_former_instance": (instance_recipe, _instance_targets),
    "mask_former_panoptic": (semantic_recipe, _panoptic_targets),
    "coco_instance_lsj": (large_scale_jitter_recipe, _seen_instance_targets),
    "coco_panoptic_lsj": (large_scale_jitter_recipe, _panoptic_targets),
    "detr_panoptic": (detr_recipe, _panoptic_targets),
}


class MaskFormerDatasetMapper:
    """Reads the files of a dataset dict, transforms image and labels, builds the targets.

    A call takes a dataset dict and returns a new one, with
        image: uint8, (3,h,w) in INPUT.FORMAT order or (1,h,w); for YUV-BT.601, floating numbers
        height, width: the size of the file, to which predictions are scaled back
        in training also the targets, in one of the two forms that compact.py tells of

    Raises:
        SampleError: a file is missing, truncated, of another size than its annotation says, or
            holds labels outside the classes; or the dataset lacks what the targets are made of.
    """

    recipe_name: ClassVar[str | None] = None  # None: INPUT.DATASET_MAPPER_NAME

    @configurable
    def __init__(
        self,
        is_train: bool = True,
        *,
        augmentations: Sequence[T.Augmentation | T.Transform],
        image_format: str,
        targets: Targets | None,
        size_divisibility: int = -1,
        compact: bool = False,
    ):
        """
        Args:
            is_train: with targets; without, they are neither read nor built.
            augmentations: applied in this order.
            image_format: a PIL mode, or "BGR".
            targets: builds the targets; None without training.
            size_divisibility: pad training images to a multiple of this; -1: do not pad.
            compact: give training samples as the model MaskFormer takes them, which are smaller
                than the official ones; see compact.py.
        """
        self.is_train = is_train
        self.augmentations = list(augmentations)
        self.image_format = image_format
        self.targets = targets
        self.size_divisibility = size_divisibility
        self.compact = compact
        logger.info(f"Augmentations in {'training' if is_train else 'test'}: {augmentations}")

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict:
        if cfg.INPUT.FORMAT not in _FORMATS:
            raise ValueError(
                f"INPUT.FORMAT={cfg.INPUT.FORMAT!r}; set it to one of {', '.join(_FORMATS)}"
            )
        if not is_train:
            return {
                "is_train": False,
                "augmentations": test_recipe(cfg),
                "image_format": cfg.INPUT.FORMAT,
                "targets": None,
            }
        name = cls.recipe_name or cfg.INPUT.DATASET_MAPPER_NAME
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
            "compact": cfg.MODEL.META_ARCHITECTURE == "MaskFormer",
        }

    def __call__(self, dataset_dict: dict) -> dict:
        sample = dict(dataset_dict)
        sample.pop("annotations", None)
        path = sample["file_name"]
        picture = PictureFile(path, self.image_format)
        size = picture.size
        expected = sample.setdefault("height", size[0]), sample.setdefault("width", size[1])
        check_size(path, size, expected, "annotation says")
        class_map = truth = None
        if self.is_train:
            class_map, truth = self.targets.read(dataset_dict, size, read_image)
        geometry = draw(self.augmentations, picture, class_map)
        # A view: the model takes channels wherever they lie, so that no pixel is moved for it.
        sample["image"] = torch.from_numpy(geometry.image(picture)).permute(2, 0, 1)
        if not self.is_train:
            return sample
        geometry.pad_frame(self.size_divisibility)
        sample["padded_size"] = geometry.frame
        sample.update(self.targets.build(truth, geometry))
        return sample if self.compact else plain(sample)


# The official classes. Each keeps to its own recipe, whatever INPUT.DATASET_MAPPER_NAME says.
class MaskFormerSemanticDatasetMapper(MaskFormerDatasetMapper):
    recipe_name = "mask_former_semantic"


class MaskFormerInstanceDatasetMapper(MaskFormerDatasetMapper):
    recipe_name = "mask_former_instance"


class MaskFormerPanopticDatasetMapper(MaskFormerDatasetMapper):
    recipe_name = "mask_former_panoptic"


class COCOInstanceNewBaselineDatasetMapper(MaskFormerDatasetMapper):
    recipe_name = "coco_instance_lsj"


class COCOPanopticNewBaselineDatasetMapper(MaskFormerDatasetMapper):
    recipe_name = "coco_panoptic_lsj"


class DETRPanopticDatasetMapper(MaskFormerDatasetMapper):
    recipe_name = "detr_panoptic"


def build_mapper(cfg: CfgNode, is_train: bool) -> MaskFormerDatasetMapper:
    """The mapper that INPUT.DATASET_MAPPER_NAME names, or the one for testing.

    Raises:
        ValueError: there is none of this name.
    """
    return MaskFormerDatasetMapper(cfg, is_train)
