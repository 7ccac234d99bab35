"""From detectron2's dataset dicts to a JSON file in COCO's instance format."""

import contextlib
import datetime
import json
import logging
import os
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
from iopath.common.file_io import file_lock

from detectron2 import _missing_attribute
from detectron2.data.catalog import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode, PolygonMasks
from detectron2.utils.file_io import PathManager

__all__ = ["convert_to_coco_dict", "convert_to_coco_json"]

logger = logging.getLogger(__name__)


def convert_to_coco_dict(dataset_name: str) -> dict[str, Any]:
    """A registered dataset in COCO's instance format.

    Category ids are the dataset's own where its metadata has thing_dataset_id_to_contiguous_id.
    An object's area is that of its mask, or else that of its box. Annotations are numbered from 1;
    without any there is no "annotations" either.

    Raises:
        ValueError: a box has not 4 or 5 numbers.
        TypeError: a segmentation is neither polygons nor an RLE.
    """
    metadata = MetadataCatalog.get(dataset_name)
    contiguous_ids = metadata.get("thing_dataset_id_to_contiguous_id")
    if contiguous_ids is None:
        contiguous_ids = {i: i for i in range(len(metadata.thing_classes))}
    dataset_ids = {contiguous: number for number, contiguous in contiguous_ids.items()}
    categories = [
        {"id": dataset_ids[i], "name": name} for i, name in enumerate(metadata.thing_classes)
    ]
    images: list[dict] = []
    annotations: list[dict] = []
    for index, sample in enumerate(DatasetCatalog.get(dataset_name)):
        image_id = sample.get("image_id", index)
        images.append(
            {
                "id": image_id,
                "width": int(sample["width"]),
                "height": int(sample["height"]),
                "file_name": str(sample["file_name"]),
            }
        )
        for annotation in sample.get("annotations", []):
            converted = _convert_annotation(annotation)
            converted["id"] = len(annotations) + 1  # 0 would count as no match in pycocotools
            converted["image_id"] = image_id
            converted["category_id"] = int(dataset_ids[annotation["category_id"]])
            annotations.append(converted)
    logger.info("Converted %d images, %d annotations", len(images), len(annotations))
    content = {
        "info": {
            "date_created": str(datetime.datetime.now()),
            "description": f"{dataset_name}, as detectron2 loads it",
        },
        "images": images,
        "categories": categories,
        "licenses": None,
    }
    return {**content, "annotations": annotations} if annotations else content


def _convert_annotation(annotation: dict) -> dict:
    box = np.asarray(annotation["bbox"]).tolist()
    if np.ndim(box) != 1 or len(box) not in (4, 5):
        raise ValueError(f"an annotation's bbox is {box}; give 4 numbers, or 5 if it is rotated")
    mode = BoxMode.XYWH_ABS if len(box) == 4 else BoxMode.XYWHA_ABS
    box = BoxMode.convert(box, annotation["bbox_mode"], mode)
    converted = {
        "bbox": [round(float(value), 3) for value in box],
        "area": float(box[2] * box[3]),
        "iscrowd": int(annotation.get("iscrowd", 0)),
    }
    if "segmentation" in annotation:
        segmentation = annotation["segmentation"]
        if isinstance(segmentation, list):
            converted["area"] = float(PolygonMasks([segmentation]).area()[0])
        elif isinstance(segmentation, dict):
            converted["area"] = float(mask_util.area(segmentation))
            if isinstance(segmentation["counts"], bytes):  # JSON has strings only
                counts = segmentation["counts"].decode("ascii")
                segmentation = {**segmentation, "counts": counts}
        else:
            raise TypeError(
                f"an annotation's segmentation is a {type(segmentation).__name__}; "
                "give polygons or an RLE"
            )
        converted["segmentation"] = segmentation
    if "keypoints" in annotation:
        # x, y, visibility: the coordinates of pixels' centres become pixel indices
        keypoints = [v if i % 3 == 2 else v - 0.5 for i, v in enumerate(annotation["keypoints"])]
        seen = sum(visibility > 0 for visibility in keypoints[2::3])
        converted["keypoints"] = keypoints
        converted["num_keypoints"] = annotation.get("num_keypoints", seen)
    return converted


def convert_to_coco_json(dataset_name: str, output_file: str, allow_cached: bool = True) -> None:
    """Write `convert_to_coco_dict` of a dataset to a file; of several processes, one does.

    Args:
        allow_cached: leave the file as it is if it is there.
    """
    PathManager.mkdirs(os.path.dirname(output_file) or ".")
    with file_lock(output_file):
        if allow_cached and PathManager.exists(output_file):
            logger.warning(
                "%s is there and is used; delete it if the dataset has changed", output_file
            )
            return
        content = convert_to_coco_dict(dataset_name)
        temporary = f"{output_file}.tmp"
        try:
            with PathManager.open(temporary, "w") as file:
                json.dump(content, file)
            os.replace(temporary, output_file)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.remove(temporary)


__getattr__ = _missing_attribute(__name__)
