"""coco:ANNOTATIONS.json:IMAGES - objects, in COCO's instance format."""

from typing import Any

import numpy as np
from detectron2.structures import BoxMode

from mask2former.data.annotation_masks import box, covers_any, read_segmentation
from mask2former.data.own.description import Description
from mask2former.data.own.folders import (
    category_ids,
    entries_by_id,
    pictures_of_list,
    read_listing,
)
from mask2former.data.problems import Problem

LISTS = ("images", "annotations", "categories")
FOR_EVALUATION = ("id", "bbox", "area", "iscrowd")  # what pycocotools wants of each annotation


def describe(json_file: str, image_dir: str) -> Description:
    """The categories, which become classes by ascending id.

    Raises:
        FileNotFoundError, ValueError: the JSON is not there, or is none of this form.
    """
    content = read_listing(json_file, LISTS)
    contiguous, classes = category_ids(content["categories"], json_file)
    metadata = {
        "evaluator_type": "coco",
        "image_root": image_dir,
        "thing_dataset_id_to_contiguous_id": contiguous,
    }
    if all(key in entry for entry in content["annotations"] for key in FOR_EVALUATION):
        metadata["json_file"] = json_file  # else the evaluator makes one of the samples
    return Description(classes, json_file, ("thing_classes",), metadata)


def load(json_file: str, image_dir: str) -> tuple[list[dict], list[Problem]]:
    """Dataset dicts with annotations, of the pictures that are there, in the JSON's order.

    Raises:
        FileNotFoundError, ValueError: the JSON or the folder cannot be read at all.
    """
    content = read_listing(json_file, LISTS)
    contiguous, _ = category_ids(content["categories"], json_file)
    images, problems = entries_by_id(
        content["images"], "image", ("id", "file_name", "height", "width"), json_file
    )
    files, missing = pictures_of_list(images, image_dir, json_file)
    annotations, unusable = entries_by_id(
        content["annotations"], "annotation", ("id", "image_id", "category_id"), json_file
    )
    problems += missing + unusable
    if not images:
        problems.append(Problem("no images", f"{json_file}: it lists no images; add some"))
    if 0 in annotations:
        text = f"{json_file}: an annotation has the id 0, which pycocotools takes for no match; "
        problems.append(Problem("annotation id 0", text + "number from 1", is_fatal=False))
    of_image: dict[Any, list[dict]] = {number: [] for number in images}
    for number, annotation in annotations.items():
        problem = _problem(number, annotation, images, contiguous, json_file)
        if problem is not None:
            problems.append(problem)
        else:
            image = images[annotation["image_id"]]
            of_image[image["id"]].append(_convert(annotation, image, contiguous))
    dicts = [
        {
            "file_name": files[number],
            "image_id": number,
            "height": images[number]["height"],
            "width": images[number]["width"],
            "annotations": of_image[number],
        }
        for number in files
    ]
    return dicts, problems


def _problem(
    number: Any, annotation: dict, images: dict, contiguous: dict, path: str
) -> Problem | None:
    image, category = annotation["image_id"], annotation["category_id"]
    where = f"{path}: annotation {number}"
    if image not in images:
        return Problem(
            "annotation of an unknown image",
            f'{where} is of image {image!r}, which "images" does not list; add it or correct it',
        )
    if category not in contiguous:
        return Problem(
            "annotation of an unknown category",
            f'{where} is of category {category!r}, which "categories" does not list; add it or '
            "correct it",
        )
    if not _is_box(annotation.get("bbox")):
        found = annotation["bbox"]
        return Problem(
            "unusable box", f"{where} has the bbox {found!r}; give [x, y, width, height]"
        )
    if "segmentation" not in annotation:
        return Problem(
            "annotation without segmentation",
            f"{where} has no segmentation; masks are learned, so boxes are not enough",
        )
    return None


def _is_box(box: Any) -> bool:
    """Whether it is one or absent."""
    is_list = isinstance(box, list) and len(box) == 4
    return not box or (is_list and all(isinstance(value, (int, float)) for value in box))


def _convert(annotation: dict, image: dict, contiguous: dict) -> dict:
    """As detectron2 has it; a box that is missing is that of the segmentation."""
    return {
        "id": annotation["id"],
        "iscrowd": annotation.get("iscrowd", 0),
        "bbox": annotation.get("bbox") or _box(annotation["segmentation"], image),
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": contiguous[annotation["category_id"]],
        "segmentation": annotation["segmentation"],
    }


def _box(segmentation: Any, image: dict) -> list[float]:
    """x, y, width, height; zeros of nothing, and of what is refused when its mask is drawn."""
    try:
        shape = read_segmentation(segmentation, image["height"], image["width"])
    except ValueError:
        return [0.0, 0.0, 0.0, 0.0]
    if not covers_any(shape):
        return [0.0, 0.0, 0.0, 0.0]
    if isinstance(shape, np.ndarray):
        return box(shape)
    corners = np.concatenate(shape)
    low, high = corners.min(axis=0), corners.max(axis=0)
    return [*low.tolist(), *(high - low).tolist()]
