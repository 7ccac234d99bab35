"""What mappers are made of: reading images, transforming annotations, making Instances."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import torch

from detectron2 import _missing_attribute
from detectron2.config import CfgNode
from detectron2.structures import (
    BitMasks,
    Boxes,
    BoxMode,
    Instances,
    PolygonMasks,
    polygons_to_bitmask,
)

from . import transforms as T
from .catalog import MetadataCatalog
from .image_io import (
    SizeMismatchError,
    check_image_size,
    convert_image_to_rgb,
    convert_PIL_to_numpy,
    read_image,
)

__all__ = [
    "SizeMismatchError",
    "annotations_to_instances",
    "build_augmentation",
    "build_transform_gen",
    "check_image_size",
    "check_metadata_consistency",
    "convert_PIL_to_numpy",
    "convert_image_to_rgb",
    "create_keypoint_hflip_indices",
    "filter_empty_instances",
    "gen_crop_transform_with_instance",
    "read_image",
    "transform_instance_annotations",
    "transform_keypoint_annotations",
]


def transform_instance_annotations(
    annotation: dict[str, Any],
    transforms: T.Transform | list[T.Transform],
    image_size: tuple[int, int],
    *,
    keypoint_hflip_indices: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Transform one annotation in place: its box, segmentation and keypoints.

    Args:
        annotation: COCO-like, with "bbox", "bbox_mode" and perhaps "segmentation" (polygons, or
            RLE, which becomes a binary mask) and "keypoints".
        transforms: what was done to the image.
        image_size: (height, width) after the transforms; boxes are clipped to it.
        keypoint_hflip_indices: see `create_keypoint_hflip_indices`.

    Returns:
        the annotation, its box in XYXY_ABS.
    """
    if isinstance(transforms, (list, tuple)):
        transforms = T.TransformList(transforms)
    height, width = image_size
    box = BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)
    box = transforms.apply_box(np.array([box], dtype=np.float64))[0]
    annotation["bbox"] = np.clip(box, 0, [width, height, width, height])
    annotation["bbox_mode"] = BoxMode.XYXY_ABS
    if "segmentation" in annotation:
        annotation["segmentation"] = _transform_segmentation(
            annotation["segmentation"], transforms, image_size
        )
    if "keypoints" in annotation:
        annotation["keypoints"] = transform_keypoint_annotations(
            annotation["keypoints"], transforms, image_size, keypoint_hflip_indices
        )
    return annotation


def _transform_segmentation(
    segmentation: list | dict, transforms: T.Transform, image_size: tuple[int, int]
) -> list[np.ndarray] | np.ndarray:
    if isinstance(segmentation, list):
        polygons = [
            np.asarray(polygon, dtype=np.float64).reshape(-1, 2) for polygon in segmentation
        ]
        return [polygon.reshape(-1) for polygon in transforms.apply_polygons(polygons)]
    if isinstance(segmentation, dict):
        mask = transforms.apply_segmentation(mask_util.decode(segmentation))
        if mask.shape[:2] != tuple(image_size):
            raise ValueError(
                f"a mask is {mask.shape[0]}x{mask.shape[1]} after its transforms, the image "
                f"{image_size[0]}x{image_size[1]}; the RLE's size differs from the image's"
            )
        return mask
    raise ValueError(
        f"a segmentation is a {type(segmentation).__name__}; give polygons as a list of lists, "
        "or a COCO RLE as a dict"
    )


def transform_keypoint_annotations(
    keypoints: Sequence[float],
    transforms: T.Transform,
    image_size: tuple[int, int],
    keypoint_hflip_indices: Sequence[int] | None = None,
) -> np.ndarray:
    """(K * 3) as x, y, visibility -> (K, 3); those outside the image become zeros.

    Left and right change places if the transforms flip the image an odd number of times.
    """
    keypoints = np.array(keypoints, dtype=np.float64).reshape(-1, 3)
    xy = transforms.apply_coords(keypoints[:, :2].copy())
    height, width = image_size
    is_inside = ((xy >= 0) & (xy <= [width, height])).all(axis=1)
    keypoints[:, :2] = xy
    keypoints[~is_inside, 2] = 0
    flips = [
        t
        for t in getattr(transforms, "transforms", [transforms])
        if isinstance(t, T.HFlipTransform)
    ]
    if keypoint_hflip_indices is not None and len(keypoint_hflip_indices) != len(keypoints):
        raise ValueError(
            f"an annotation has {len(keypoints)} keypoints, but the dataset's metadata names "
            f"{len(keypoint_hflip_indices)}; correct one of them"
        )
    if len(flips) % 2 == 1:
        if keypoint_hflip_indices is None:
            raise ValueError(
                "keypoints were flipped without keypoint_hflip_indices; give those of "
                "create_keypoint_hflip_indices"
            )
        keypoints = keypoints[np.asarray(keypoint_hflip_indices)]
    keypoints[keypoints[:, 2] == 0] = 0
    return keypoints


def annotations_to_instances(
    annos: list[dict[str, Any]], image_size: tuple[int, int], mask_format: str = "polygon"
) -> Instances:
    """Instances of (height, width) with gt_boxes, gt_classes and perhaps gt_masks, gt_keypoints.

    Args:
        annos: one per instance, in absolute pixels; the first says which fields there are.
        mask_format: "polygon" for PolygonMasks, "bitmask" for BitMasks, where a segmentation
            may be polygons, an RLE or a binary (H, W) array.
    """
    boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in annos]
    instances = Instances(image_size)
    instances.gt_boxes = Boxes(torch.tensor(np.array(boxes, dtype=np.float32)).reshape(-1, 4))
    instances.gt_classes = torch.tensor([a["category_id"] for a in annos], dtype=torch.int64)
    if annos and "segmentation" in annos[0]:
        if mask_format not in _MASKS:
            raise ValueError(f"mask_format={mask_format!r}; set it to 'polygon' or 'bitmask'")
        segmentations = [a["segmentation"] for a in annos]
        instances.gt_masks = _MASKS[mask_format](segmentations, image_size)
    if annos and "keypoints" in annos[0]:
        # here, because only datasets with keypoints need what the subset lacks
        from detectron2.structures import Keypoints

        instances.gt_keypoints = Keypoints(np.array([a["keypoints"] for a in annos]))
    return instances


def _polygon_masks(segmentations: list, image_size: tuple[int, int]) -> PolygonMasks:
    try:
        return PolygonMasks(segmentations)
    except ValueError as error:
        raise ValueError(
            f"INPUT.MASK_FORMAT is 'polygon', but a segmentation is none ({error}); "
            "set it to 'bitmask'"
        ) from error


def _bit_masks(segmentations: list, image_size: tuple[int, int]) -> BitMasks:
    masks = [_binary_mask(segmentation, image_size) for segmentation in segmentations]
    return BitMasks(torch.from_numpy(np.stack(masks)))


def _binary_mask(segmentation: list | dict | np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    if isinstance(segmentation, list):
        return polygons_to_bitmask(segmentation, *image_size)
    if isinstance(segmentation, dict):
        return mask_util.decode(segmentation).astype(bool)
    if isinstance(segmentation, np.ndarray) and segmentation.ndim == 2:
        return segmentation.astype(bool)
    found = getattr(segmentation, "shape", type(segmentation).__name__)
    raise ValueError(
        f"a segmentation is {found}; give polygons as a list of lists, a COCO RLE as a dict, "
        "or a binary array (H, W)"
    )


_MASKS = {"polygon": _polygon_masks, "bitmask": _bit_masks}


def filter_empty_instances(
    instances: Instances,
    by_box: bool = True,
    by_mask: bool = True,
    box_threshold: float = 1e-5,
    return_mask: bool = False,
) -> Instances | tuple[Instances, torch.Tensor]:
    """Drop instances whose box has an edge <= `box_threshold` or whose mask is empty.

    Returns:
        the rest, and with `return_mask` also which were kept, (N,) bool.
    """
    if not by_box and not by_mask:
        raise ValueError("filter_empty_instances has nothing to filter by; set by_box or by_mask")
    tests = []
    if by_box:
        tests.append(instances.gt_boxes.nonempty(threshold=box_threshold))
    if by_mask and instances.has("gt_masks"):
        tests.append(instances.gt_masks.nonempty())
    everything = torch.ones(len(instances), dtype=torch.bool)
    keep = torch.stack(tests).all(dim=0) if tests else everything
    kept = instances[keep]
    return (kept, keep) if return_mask else kept


def create_keypoint_hflip_indices(dataset_names: str | list[str]) -> list[int]:
    """For each keypoint the one whose place it takes in a mirrored image, by the metadata."""
    if isinstance(dataset_names, str):
        dataset_names = [dataset_names]
    check_metadata_consistency("keypoint_names", dataset_names)
    check_metadata_consistency("keypoint_flip_map", dataset_names)
    metadata = MetadataCatalog.get(dataset_names[0])
    names = list(metadata.keypoint_names)
    mirrored = dict(metadata.keypoint_flip_map)
    mirrored.update({right: left for left, right in metadata.keypoint_flip_map})
    return [names.index(mirrored.get(name, name)) for name in names]


def check_metadata_consistency(key: str, dataset_names: Sequence[str]) -> None:
    """Raise a ValueError if the metadata `key` is not the same in all the datasets."""
    values = [getattr(MetadataCatalog.get(name), key) for name in dataset_names]
    for name, value in zip(dataset_names, values):
        if value != values[0]:
            raise ValueError(
                f"{key} of {name} is {value}, but of {dataset_names[0]} {values[0]}; "
                "datasets that are used together need the same"
            )


def gen_crop_transform_with_instance(
    crop_size: tuple[int, int], image_size: tuple[int, int], instance: dict[str, Any]
) -> T.CropTransform:
    """A random crop of (height, width) that contains the centre of the instance's box."""
    x0, y0, x1, y1 = BoxMode.convert(instance["bbox"], instance["bbox_mode"], BoxMode.XYXY_ABS)
    starts = []
    for center, crop, size in zip(((y0 + y1) / 2, (x0 + x1) / 2), crop_size, image_size):
        if crop > size or not 0 <= center <= size:
            raise ValueError(
                f"no crop of {tuple(crop_size)} in an image of {tuple(image_size)} contains the "
                f"centre of the box {(x0, y0, x1, y1)}"
            )
        lowest = max(int(np.floor(center)) - crop, 0)
        highest = max(min(size - crop, int(np.ceil(center))), 0)
        starts.append(np.random.randint(lowest, highest + 1))
    return T.CropTransform(starts[1], starts[0], crop_size[1], crop_size[0])


def build_augmentation(cfg: CfgNode, is_train: bool) -> list[T.Augmentation]:
    """Resizing and flipping as the keys under INPUT say."""
    if not is_train:
        length, max_size = cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST
        return [T.ResizeShortestEdge(length, max_size, "choice")]
    augmentations = [
        T.ResizeShortestEdge(
            cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING
        )
    ]
    flip = cfg.INPUT.RANDOM_FLIP
    if flip not in ("none", "horizontal", "vertical"):
        raise ValueError(f"INPUT.RANDOM_FLIP={flip!r}; set it to none, horizontal or vertical")
    if flip != "none":
        augmentations.append(
            T.RandomFlip(horizontal=flip == "horizontal", vertical=flip == "vertical")
        )
    return augmentations


# the name of detectron2 0.1, still in use in its projects
build_transform_gen = build_augmentation

__getattr__ = _missing_attribute(__name__)
