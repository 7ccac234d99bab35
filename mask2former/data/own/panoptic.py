"""panoptic:PANOPTIC.json:IMAGES:PNGS - things and stuff, in COCO's panoptic format."""

import os
from typing import Any

from mask2former.data.own.description import Description
from mask2former.data.own.folders import (
    category_ids,
    entries_by_id,
    files_below,
    pictures_of_list,
    read_listing,
)
from mask2former.data.problems import Problem

LISTS = ("images", "annotations", "categories")
IGNORE_VALUE = 255
LABEL_DIVISOR = 1000  # detectron2's, for evaluators that number segments themselves


def describe(panoptic_json: str, image_dir: str, png_dir: str) -> Description:
    """The categories, which become classes by ascending id; "isthing" says which are things.

    Raises:
        FileNotFoundError, ValueError: the JSON is not there, or is none of this form.
    """
    categories = read_listing(panoptic_json, LISTS)["categories"]
    contiguous, classes = category_ids(categories, panoptic_json)
    is_thing = _things(categories, panoptic_json)
    metadata = {
        "evaluator_type": "coco_panoptic_seg",
        "panoptic_json": panoptic_json,
        "panoptic_root": png_dir,
        "image_root": image_dir,
        "ignore_label": IGNORE_VALUE,
        "label_divisor": LABEL_DIVISOR,
        "thing_dataset_id_to_contiguous_id": {k: i for k, i in contiguous.items() if is_thing[k]},
        "stuff_dataset_id_to_contiguous_id": {
            k: i for k, i in contiguous.items() if not is_thing[k]
        },
    }
    # All classes in both, as detectron2 has it for Cityscapes: things and stuff are numbered
    # together, and its Visualizer looks either up by that number.
    return Description(classes, panoptic_json, ("thing_classes", "stuff_classes"), metadata)


def _things(categories: list[dict], path: str) -> dict[Any, bool]:
    for category in categories:
        if "isthing" not in category:
            raise ValueError(
                f'{path}: category {category["name"]!r} has no "isthing"; set it to 1 for things '
                "that are counted and to 0 for stuff"
            )
    return {category["id"]: bool(category["isthing"]) for category in categories}


def load(panoptic_json: str, image_dir: str, png_dir: str) -> tuple[list[dict], list[Problem]]:
    """Dataset dicts with pan_seg_file_name and segments_info, of those that have both files.

    Raises:
        FileNotFoundError, ValueError: the JSON or a folder cannot be read at all.
    """
    content = read_listing(panoptic_json, LISTS)
    contiguous, _ = category_ids(content["categories"], panoptic_json)
    is_thing = _things(content["categories"], panoptic_json)
    images, problems = entries_by_id(
        content["images"], "image", ("id", "file_name", "height", "width"), panoptic_json
    )
    files, missing = pictures_of_list(images, image_dir, panoptic_json)
    problems += missing
    pngs = set(files_below(png_dir))
    dicts = []
    annotated = set()
    for number, entry in enumerate(content["annotations"]):
        where = f"{panoptic_json}: annotation {number} of the list"
        lacking = [k for k in ("image_id", "file_name", "segments_info") if k not in entry]
        if lacking:
            text = f'{where} has no "{lacking[0]}"; add it'
            problems.append(Problem(f"annotation without {lacking[0]}", text))
            continue
        image, png = entry["image_id"], entry["file_name"]
        known = [s for s in entry["segments_info"] if s.get("category_id") in contiguous]
        if len(known) < len(entry["segments_info"]):
            text = f'{where} ({png}) has segments of categories that "categories" does not list; '
            problems.append(Problem("segment of an unknown category", text + "add or correct them"))
        if image not in images:
            text = f'{where} is of image {image}, which "images" does not list; add or correct it'
            problems.append(Problem("annotation of an unknown image", text))
        elif image in annotated:
            text = f"{where} is the second one of image {image}; take one of them out"
            problems.append(Problem("duplicate annotation", text))
        elif png not in pngs:
            text = f"{os.path.join(png_dir, png)}: no such file, but {panoptic_json} lists it; "
            problems.append(Problem("missing PNG", text + "copy it there or take it out"))
        elif image in files:
            dicts.append(
                {
                    "file_name": files[image],
                    "image_id": image,
                    "height": images[image]["height"],
                    "width": images[image]["width"],
                    "pan_seg_file_name": os.path.join(png_dir, png),
                    "segments_info": [_convert(s, contiguous, is_thing) for s in known],
                }
            )
        annotated.add(image)
    for number in images.keys() - annotated:
        text = f"{panoptic_json}: image {number} has no annotation; add it or take the image out"
        problems.append(Problem("image without annotation", text))
    if not images:
        problems.append(Problem("no images", f"{panoptic_json}: it lists no images; add some"))
    return dicts, problems


def _convert(segment: dict, contiguous: dict, is_thing: dict) -> dict:
    category = segment["category_id"]
    return {
        "iscrowd": 0,
        **segment,
        "category_id": contiguous[category],
        "isthing": is_thing[category],
    }
