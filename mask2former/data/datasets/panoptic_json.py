"""Panoptic ground truth in COCO's form: one JSON, a directory of pictures, one of segment PNGs."""

import os
from collections.abc import Mapping
from typing import Any

from mask2former.data.files import read_json


def load_panoptic_json(
    panoptic_json: str,
    image_dir: str,
    panoptic_dir: str,
    thing_ids: Mapping[int, int],
    stuff_ids: Mapping[int, int],
    *,
    semantic_dir: str | None = None,
    advice: str = "correct the path",
) -> list[dict]:
    """Dataset dicts with file_name, image_id, pan_seg_file_name and segments_info.

    height and width are there if the JSON gives them, sem_seg_file_name with `semantic_dir`. A
    segment's category_id is contiguous, and it has isthing. No picture is opened.

    Args:
        panoptic_json: lists "annotations" and "images"; an image that it does not list has the
            name of its PNG with .jpg.
        panoptic_dir: the PNGs that the annotations name; colours are ids as panopticapi has them.
        thing_ids, stuff_ids: category id of the JSON -> contiguous id; a category of both is a
            thing.
        semantic_dir: label maps of the same names as the PNGs.
        advice: what to do about missing files; it ends a sentence.

    Raises:
        FileNotFoundError: the JSON, a directory or files in it are missing.
        ValueError: the JSON is broken, or names a category that is neither thing nor stuff.
    """
    content = read_json(panoptic_json, advice)
    if not isinstance(content, dict) or not content.get("annotations"):
        raise ValueError(f"{panoptic_json}: no annotations in it; {advice}")
    images = {image["id"]: image for image in content.get("images", ())}
    dicts = []
    for entry in content["annotations"]:
        image = images.get(entry["image_id"], {})
        stem = os.path.splitext(entry["file_name"])[0]
        sample = {
            "file_name": os.path.join(image_dir, image.get("file_name", f"{stem}.jpg")),
            "image_id": entry["image_id"],
            **{key: image[key] for key in ("height", "width") if key in image},
            "pan_seg_file_name": os.path.join(panoptic_dir, entry["file_name"]),
            "segments_info": [
                _contiguous(segment, thing_ids, stuff_ids, panoptic_json, entry["file_name"])
                for segment in entry["segments_info"]
            ],
        }
        if semantic_dir is not None:
            sample["sem_seg_file_name"] = os.path.join(semantic_dir, entry["file_name"])
        dicts.append(sample)
    check_listed_files(dicts, "file_name", image_dir, panoptic_json, advice)
    check_listed_files(dicts, "pan_seg_file_name", panoptic_dir, panoptic_json, advice)
    if semantic_dir is not None:
        check_listed_files(dicts, "sem_seg_file_name", semantic_dir, panoptic_json, advice)
    return dicts


def check_listed_files(
    dicts: list[dict], key: str, directory: str, listed_in: str, advice: str
) -> None:
    """Whether all files `key` of the dicts, all below `directory`, are there.

    Raises:
        FileNotFoundError: the directory or a file is missing.
    """
    if not os.path.isdir(directory):
        raise FileNotFoundError(f"{directory}: no such directory; {advice}")
    there = {entry.path for entry in os.scandir(directory)}  # faster than a question for each
    missing = [
        sample[key]
        for sample in dicts
        if sample[key] not in there and not os.path.isfile(sample[key])
    ]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(dicts)} files that {listed_in} lists are not in {directory} "
            f"(the first: {missing[0]}); {advice}"
        )


def _contiguous(
    segment: Mapping[str, Any],
    thing_ids: Mapping[int, int],
    stuff_ids: Mapping[int, int],
    panoptic_json: str,
    name: str,
) -> dict:
    category = segment["category_id"]
    if category not in thing_ids and category not in stuff_ids:
        raise ValueError(
            f"{panoptic_json}: a segment of {name} has category_id={category}, which the dataset "
            "does not have; it belongs to another dataset or version"
        )
    is_thing = category in thing_ids
    contiguous = (thing_ids if is_thing else stuff_ids)[category]
    return {**segment, "category_id": contiguous, "isthing": is_thing}
