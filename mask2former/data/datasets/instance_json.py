"""Instance ground truth in COCO's form: one JSON of outlines and a directory of pictures."""

import os
from collections.abc import Mapping

from detectron2.data.datasets import load_coco_json

from mask2former.data.datasets.panoptic_json import check_directory, check_listed_files


def load_instance_json(
    instance_json: str,
    image_dir: str,
    thing_ids: Mapping[int, int],
    *,
    advice: str = "correct the path",
    json_advice: str | None = None,
) -> list[dict]:
    """Dataset dicts with file_name, image_id, height, width and annotations, by image id.

    An annotation's category_id is contiguous. A JSON without annotations (that of a test set)
    gives empty lists. No picture is opened.

    Args:
        thing_ids: category id of the JSON -> contiguous id.
        advice: what to do about missing files; it ends a sentence.
        json_advice: the same about the JSON, if it differs.

    Raises:
        FileNotFoundError: the JSON, the directory or pictures in it are missing.
        ValueError: the JSON is broken, or an annotation is of a category that is none of these.
    """
    check_directory(image_dir, advice)
    json_advice = json_advice or advice
    if not os.path.isfile(instance_json):
        raise FileNotFoundError(f"{instance_json}: no such file; {json_advice}")
    try:
        dicts = load_coco_json(instance_json, image_dir)  # ids as they are: it has its own opinion
    except (ValueError, KeyError, TypeError, AssertionError) as error:  # on either provider
        # The embedded one has made a sentence of it, with advice of its own.
        found = str(error).removeprefix(f"{instance_json}: ").split("; ")[0]
        reason = f"an entry has no {error}" if isinstance(error, KeyError) else found or repr(error)
        raise ValueError(
            f"{instance_json}: not in COCO's format ({reason}); delete it and {json_advice}"
        ) from error
    if not dicts:
        raise ValueError(f"{instance_json}: no images in it; delete it and {json_advice}")
    for sample in dicts:
        for annotation in sample["annotations"]:
            category = annotation["category_id"]
            if category not in thing_ids:
                name = os.path.basename(sample["file_name"])
                raise ValueError(
                    f"{instance_json}: an annotation of {name} has category_id={category}, "
                    "which the dataset does not have; it belongs to another dataset or version"
                )
            annotation["category_id"] = thing_ids[category]
    check_listed_files(dicts, "file_name", image_dir, instance_json, advice)
    return dicts
