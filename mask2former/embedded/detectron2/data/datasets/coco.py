"""Datasets in COCO's instance format, and those whose ground truth lies beside the images."""

import json
import logging
import os
from typing import Any

import pycocotools.mask as mask_util

from detectron2 import _missing_attribute
from detectron2.data.catalog import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathManager

from .coco_conversion import convert_to_coco_dict, convert_to_coco_json

__all__ = [
    "convert_to_coco_dict",
    "convert_to_coco_json",
    "load_coco_json",
    "load_sem_seg",
    "register_coco_instances",
]

logger = logging.getLogger(__name__)

_ANNOTATION_KEYS = ("iscrowd", "bbox", "keypoints", "category_id")


def load_coco_json(
    json_file: str,
    image_root: str | os.PathLike,
    dataset_name: str | None = None,
    extra_annotation_keys: list[str] | None = None,
) -> list[dict]:
    """Samples of a dataset in COCO's instance format, by ascending image id.

    Args:
        image_root: what the "file_name" of each image is relative to.
        dataset_name: if given, category ids become 0, 1, ... by ascending id, and the metadata
            of this dataset gets "thing_classes" and "thing_dataset_id_to_contiguous_id".
        extra_annotation_keys: of annotations, to be kept beside the usual ones.

    Returns:
        dicts with "file_name", "height", "width", "image_id" and "annotations": each with
        "iscrowd", "bbox" (XYWH_ABS), "category_id", "segmentation" (polygons of at least three
        corners, or a compressed RLE) and "keypoints", as far as there. An annotation all of whose
        polygons are smaller is left out, with a warning.

    Raises:
        ValueError: the file is not of this format; the message says what is wrong with it.
    """
    with PathManager.open(json_file) as file:
        try:
            content = json.load(file)
        except ValueError as error:
            raise ValueError(f"{json_file}: not whole ({error}); get it again") from error
    if not isinstance(content, dict) or "images" not in content:
        raise ValueError(f'{json_file}: no "images" in it; give a file in COCO\'s format')

    contiguous_ids = None
    if dataset_name is not None:
        contiguous_ids = _describe_classes(content.get("categories", []), dataset_name)
    annotations = content.get("annotations", [])
    _check_annotation_ids(annotations, json_file)
    images = {image["id"]: image for image in content["images"]}
    of_image: dict[Any, list[dict]] = {image_id: [] for image_id in images}
    for annotation in annotations:
        of_image.setdefault(annotation["image_id"], []).append(annotation)
    strays = sum(len(of_image[image_id]) for image_id in of_image.keys() - images.keys())
    if strays:
        logger.warning(
            "%s: %d of %d annotations belong to no image of it and are left out",
            json_file,
            strays,
            len(annotations),
        )
    keys = (*_ANNOTATION_KEYS, *(extra_annotation_keys or ()))
    samples = []
    num_invalid = 0
    for image_id in sorted(images):
        image = images[image_id]
        loaded = []
        for annotation in of_image[image_id]:
            entry = _load_annotation(annotation, keys, contiguous_ids, json_file)
            if entry is None:
                num_invalid += 1
            else:
                loaded.append(entry)
        samples.append(
            {
                "file_name": os.path.join(image_root, image["file_name"]),
                "height": image["height"],
                "width": image["width"],
                "image_id": image_id,
                "annotations": loaded,
            }
        )
    if num_invalid:
        logger.warning(
            "%s: %d annotations have no polygon of three corners or more and are left out",
            json_file,
            num_invalid,
        )
    logger.info("Loaded %d images in COCO format from %s", len(samples), json_file)
    return samples


def _describe_classes(categories: list[dict], dataset_name: str) -> dict[int, int]:
    """Put the classes into the metadata; dataset id -> contiguous id."""
    categories = sorted(categories, key=lambda category: category["id"])
    contiguous_ids = {category["id"]: i for i, category in enumerate(categories)}
    if list(contiguous_ids) != list(range(1, len(categories) + 1)) and "coco" not in dataset_name:
        logger.warning(
            "%s: its category ids are not 1, 2, ...; they become 0, 1, ... by ascending id",
            dataset_name,
        )
    metadata = MetadataCatalog.get(dataset_name)
    metadata.thing_classes = [category["name"] for category in categories]
    metadata.thing_dataset_id_to_contiguous_id = contiguous_ids
    return contiguous_ids


def _check_annotation_ids(annotations: list[dict], json_file: str) -> None:
    """Refuse ids that occur twice, but for the 2014 minival files, which are known for some."""
    ids = [annotation["id"] for annotation in annotations]
    if len(set(ids)) < len(ids) and "minival" not in str(json_file):
        raise ValueError(
            f"{json_file}: {len(ids)} annotations have only {len(set(ids))} different ids; "
            "number them anew"
        )


def _load_annotation(
    annotation: dict,
    keys: tuple[str, ...],
    contiguous_ids: dict[int, int] | None,
    json_file: str,
) -> dict | None:
    """One annotation as detectron2 has it; None if no polygon of it is one."""
    where = f"{json_file}: annotation {annotation.get('id')} of image {annotation['image_id']}"
    if annotation.get("ignore", 0) != 0:
        raise ValueError(f'{where} is marked "ignore", which is not supported; mark it "iscrowd"')
    loaded = {key: annotation[key] for key in keys if key in annotation}
    if "bbox" in loaded and len(loaded["bbox"]) == 0:
        raise ValueError(f'{where} has an empty "bbox"; give it 4 numbers or leave it out')
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, dict):
        if isinstance(segmentation["counts"], list):
            segmentation = mask_util.frPyObjects(segmentation, *segmentation["size"])
        loaded["segmentation"] = segmentation
    elif segmentation:
        polygons = [p for p in segmentation if len(p) % 2 == 0 and len(p) >= 6]
        if not polygons:
            return None
        loaded["segmentation"] = polygons
    if loaded.get("keypoints"):
        # x, y, visibility: pixel indices become the coordinates of the pixels' centres
        loaded["keypoints"] = [
            value if i % 3 == 2 else value + 0.5 for i, value in enumerate(loaded["keypoints"])
        ]
    loaded["bbox_mode"] = BoxMode.XYWH_ABS
    if contiguous_ids is not None:
        if loaded["category_id"] not in contiguous_ids:
            raise ValueError(
                f'{where} is of category {loaded["category_id"]}, which "categories" does not '
                "list; add it there or correct the annotation"
            )
        loaded["category_id"] = contiguous_ids[loaded["category_id"]]
    return loaded


def register_coco_instances(
    name: str, metadata: dict, json_file: str | os.PathLike, image_root: str | os.PathLike
) -> None:
    """Put a dataset in COCO's instance format into the catalogs; nothing is read until it is used.

    Args:
        metadata: what is to be known besides; may be empty.
    """
    for value, what in ((json_file, "json_file"), (image_root, "image_root")):
        if not isinstance(value, (str, os.PathLike)):
            raise ValueError(f"{what} of dataset {name!r} is {value!r}; give a path")
    if not isinstance(name, str):
        raise ValueError(f"a dataset's name is {name!r}; give a string")
    if name not in DatasetCatalog:
        DatasetCatalog.register(name, lambda: load_coco_json(json_file, image_root, name))
    MetadataCatalog.get(name).set(
        json_file=json_file, image_root=image_root, evaluator_type="coco", **metadata
    )


def load_sem_seg(
    gt_root: str, image_root: str, gt_ext: str = "png", image_ext: str = "jpg"
) -> list[dict]:
    """Samples of a semantic segmentation dataset in two flat directories.

    Args:
        gt_root, image_root: `a.png` in one belongs to `a.jpg` in the other.
        gt_ext, image_ext: how the names end after what they have in common.

    Returns:
        dicts with "file_name" and "sem_seg_file_name", sorted by name. Where one of a pair is
        missing, the other is left out, with a warning.

    Raises:
        FileNotFoundError: a directory has no such files, or no two files belong together.
    """
    images = _files_by_stem(image_root, image_ext)
    labels = _files_by_stem(gt_root, gt_ext)
    for root, ext, files in ((image_root, image_ext, images), (gt_root, gt_ext, labels)):
        if not files:
            raise FileNotFoundError(
                f"{root} contains no file that ends in {ext}; check the dataset's path"
            )
    stems = sorted(images.keys() & labels.keys())
    if not stems:
        raise FileNotFoundError(
            f"no label in {gt_root} has the name of an image in {image_root}; "
            f"expected e.g. {min(images)}.{gt_ext.lstrip('.')}"
        )
    if len(stems) < max(len(images), len(labels)):
        logger.warning(
            "%s has %d images and %s %d labels; the %d that belong together are used",
            image_root,
            len(images),
            gt_root,
            len(labels),
            len(stems),
        )
    return [{"file_name": images[s], "sem_seg_file_name": labels[s]} for s in stems]


def _files_by_stem(root: str, ext: str) -> dict[str, str]:
    """Name without the extension -> path, of the files directly in `root`."""
    names = [name for name in PathManager.ls(root) if name.endswith(ext)]
    return {name[: -len(ext)].rstrip("."): os.path.join(root, name) for name in names}


__getattr__ = _missing_attribute(__name__)
