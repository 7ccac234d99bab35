"""Panoptic ground truth in COCO's form: one JSON, a directory of pictures, one of segment PNGs."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mask2former.files import read_json


def load_panoptic_json(
    panoptic_json: str,
    image_dir: str,
    panoptic_dir: str,
    thing_ids: Mapping[int, int],
    stuff_ids: Mapping[int, int],
    *,
    semantic_dir: str | None = None,
    advice: str = "correct the path",
    json_advice: str | None = None,
    semantic_advice: str | None = None,
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
        json_advice: the same about the JSON and its PNGs, if it differs.
        semantic_advice: the same about the label maps, if it differs.

    Raises:
        FileNotFoundError: the JSON, a directory or files in it are missing.
        ValueError: the JSON is broken, or names a category that is neither thing nor stuff.
    """
    check_directory(image_dir, advice)
    json_advice = json_advice or advice
    annotations, images = read_panoptic_json(panoptic_json, json_advice)
    dicts = []
    for entry in annotations:
        image = images.get(entry["image_id"], {})
        stem = os.path.splitext(entry["file_name"])[0]
        sample = {
            "file_name": os.path.join(image_dir, image.get("file_name", f"{stem}.jpg")),
            "image_id": entry["image_id"],
            **{key: image[key] for key in ("height", "width") if key in image},
            "pan_seg_file_name": os.path.join(panoptic_dir, entry["file_name"]),
            "segments_info": contiguous_segments(entry, thing_ids, stuff_ids, panoptic_json),
        }
        if semantic_dir is not None:
            sample["sem_seg_file_name"] = os.path.join(semantic_dir, entry["file_name"])
        dicts.append(sample)
    check_listed_files(dicts, "file_name", image_dir, panoptic_json, advice)
    check_listed_files(dicts, "pan_seg_file_name", panoptic_dir, panoptic_json, json_advice)
    if semantic_dir is not None:
        check_listed_files(
            dicts, "sem_seg_file_name", semantic_dir, panoptic_json, semantic_advice or advice
        )
    return dicts


def read_panoptic_json(
    panoptic_json: str | Path, advice: str
) -> tuple[list[dict[str, Any]], dict[Any, dict[str, Any]]]:
    """The annotations in a JSON of COCO's panoptic form, and its images by id, if it lists them.

    An annotation has image_id, file_name and segments_info, a segment id and category_id.

    Args:
        advice: what to do about a file that is missing or of another form; it ends a sentence.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is cut off, or of another form.
    """
    content = read_json(panoptic_json, advice)
    annotations = content.get("annotations") if isinstance(content, dict) else None
    if not annotations:
        raise ValueError(f"{panoptic_json}: no annotations in it; delete it and {advice}")
    try:
        for entry in annotations:
            _ = entry["image_id"], entry["file_name"]
            _ = [(segment["id"], segment["category_id"]) for segment in entry["segments_info"]]
        images = {image["id"]: image for image in content.get("images", ())}
    except (KeyError, TypeError) as error:
        reason = f"an entry has no {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(
            f"{panoptic_json}: not in COCO's panoptic format ({reason}); delete it and {advice}"
        ) from error
    return annotations, images


def check_directory(directory: str, advice: str) -> None:
    """
    Raises:
        FileNotFoundError: there is no such directory.
    """
    if not os.path.isdir(directory):
        raise FileNotFoundError(f"{directory}: no such directory; {advice}")


def check_listed_files(
    dicts: list[dict], key: str, directory: str, listed_in: str, advice: str
) -> None:
    """Whether all files `key` of the dicts, all below `directory`, are there.

    Raises:
        FileNotFoundError: the directory or a file is missing.
    """
    check_directory(directory, advice)
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


def contiguous_segments(
    entry: Mapping[str, Any],
    thing_ids: Mapping[int, int],
    stuff_ids: Mapping[int, int],
    panoptic_json: str,
) -> list[dict]:
    """The segments_info of an annotation with contiguous category ids and isthing.

    Args:
        thing_ids, stuff_ids: as of `load_panoptic_json`.

    Raises:
        ValueError: a category is neither.
    """
    segments = []
    for segment in entry["segments_info"]:
        category = segment["category_id"]
        is_thing = category in thing_ids
        if not is_thing and category not in stuff_ids:
            raise ValueError(
                f"{panoptic_json}: a segment of {entry['file_name']} has category_id={category}, "
                "which the dataset does not have; it belongs to another dataset or version"
            )
        contiguous = (thing_ids if is_thing else stuff_ids)[category]
        segments.append({**segment, "category_id": contiguous, "isthing": is_thing})
    return segments
