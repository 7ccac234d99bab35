"""The straightforward way from files to a training sample, against which ours is measured.

Files are decoded as a whole, detectron2's transforms work one after the other on all of what the
one before has left, labels are doubles while they are moved, and each target is a bool mask as
large as the image. So do the official mappers, which add boxes that no model here reads; these are
left out. What comes out is `mask2former.data.compact.plain` of what our mapper gives.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# isort: split
from mask2former.data.annotation_masks import clip_polygon

# isort: split
from detectron2.config import CfgNode
from detectron2.data import detection_utils
from detectron2.data import transforms as T
from detectron2.projects.point_rend import ColorAugSSDTransform
from detectron2.structures import Instances, polygons_to_bitmask
from panopticapi.utils import rgb2id

GREY = 128  # beside a picture


def semantic(sample: dict, cfg: CfgNode) -> dict:
    """A target is a class that the crop shows."""
    options, ignored = cfg.INPUT, cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
    crop = options.CROP
    recipe = [
        T.ResizeShortestEdge(
            options.MIN_SIZE_TRAIN, options.MAX_SIZE_TRAIN, options.MIN_SIZE_TRAIN_SAMPLING
        ),
        T.RandomCrop_CategoryAreaConstraint(
            crop.TYPE, crop.SIZE, crop.SINGLE_CATEGORY_MAX_AREA, ignored
        ),
        *([ColorAugSSDTransform(img_format=options.FORMAT)] if options.COLOR_AUG_SSD else []),
        T.RandomFlip(),
    ]
    label = detection_utils.read_image(sample["sem_seg_file_name"]).astype("double")
    moved = T.AugInput(_read(sample, cfg), sem_seg=label)
    T.AugmentationList(recipe)(moved)
    image = _as_tensor(moved.image.transpose(2, 0, 1))
    label = _as_tensor(moved.sem_seg).long()
    height, width = label.shape
    if options.SIZE_DIVISIBILITY > 0:
        missing = [0, -width % options.SIZE_DIVISIBILITY, 0, -height % options.SIZE_DIVISIBILITY]
        image, label = F.pad(image, missing, value=GREY), F.pad(label, missing, value=ignored)
    classes = label.unique()
    classes = classes[classes != ignored]
    masks = [label == c for c in classes]
    return {**_training_sample(image, classes.tolist(), masks), "sem_seg": label}


def instance_jitter(sample: dict, cfg: CfgNode) -> dict:
    """A target is an object of which something is left; polygons are drawn at the end."""
    image, transforms = _jitter(_read(sample, cfg), cfg)
    size = image.shape[1:]
    classes, masks = [], []
    for annotation in sample["annotations"]:
        if annotation.get("iscrowd", 0):
            continue
        polygons = [np.array(flat).reshape(-1, 2) for flat in annotation["segmentation"]]
        polygons = [clip_polygon(transforms.apply_coords(polygon), *size) for polygon in polygons]
        flat = [polygon.reshape(-1) for polygon in polygons if len(polygon) >= 3]
        mask = torch.from_numpy(polygons_to_bitmask(flat, *size))
        if mask.any():
            classes.append(annotation["category_id"])
            masks.append(mask)
    return _training_sample(image, classes, masks)


def panoptic_jitter(sample: dict, cfg: CfgNode) -> dict:
    """A target is a segment, moved as the colours that its file has."""
    image, transforms = _jitter(_read(sample, cfg), cfg)
    colors = detection_utils.read_image(sample["pan_seg_file_name"], "RGB")
    ids = _as_tensor(rgb2id(transforms.apply_segmentation(colors)))
    learned = [segment for segment in sample["segments_info"] if not segment["iscrowd"]]
    classes = [segment["category_id"] for segment in learned]
    return _training_sample(image, classes, [ids == segment["id"] for segment in learned])


# INPUT.DATASET_MAPPER_NAME -> (dataset dict, cfg) -> training sample
MAPPERS: dict[str, Callable[[dict, CfgNode], dict]] = {
    "mask_former_semantic": semantic,
    "coco_instance_lsj": instance_jitter,
    "coco_panoptic_lsj": panoptic_jitter,
}


def build_plain_mapper(cfg: CfgNode) -> Callable[[dict], dict] | None:
    """The mapper that INPUT.DATASET_MAPPER_NAME names, done plainly; None if there is none here."""
    mapper = MAPPERS.get(cfg.INPUT.DATASET_MAPPER_NAME)
    return partial(mapper, cfg=cfg) if mapper else None


def _read(sample: dict, cfg: CfgNode) -> np.ndarray:
    return detection_utils.read_image(sample["file_name"], format=cfg.INPUT.FORMAT)


def _jitter(image: np.ndarray, cfg: CfgNode) -> tuple[Tensor, T.Transform]:
    options = cfg.INPUT
    side = options.IMAGE_SIZE
    recipe = [
        T.RandomFlip(),
        T.ResizeScale(options.MIN_SCALE, options.MAX_SCALE, side, side),
        T.FixedSizeCrop((side, side), pad_value=GREY, seg_pad_value=0),
    ]
    moved = T.AugInput(image)
    transforms = T.AugmentationList(recipe)(moved)
    return _as_tensor(moved.image.transpose(2, 0, 1)), transforms


def _as_tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def _training_sample(image: Tensor, classes: list[int], masks: list[Tensor]) -> dict:
    instances = Instances(tuple(image.shape[1:]))
    instances.gt_classes = torch.tensor(classes, dtype=torch.int64)
    empty = torch.zeros(0, *image.shape[1:], dtype=torch.bool)
    instances.gt_masks = torch.stack(masks) if masks else empty
    return {"image": image, "instances": instances}
