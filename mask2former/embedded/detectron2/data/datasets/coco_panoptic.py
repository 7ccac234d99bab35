"""Datasets in COCO's panoptic format: a JSON of segments, and PNGs whose colours are their ids."""

import json
import os

from detectron2 import _missing_attribute
from detectron2.data.catalog import DatasetCatalog, MetadataCatalog
from detectron2.utils.file_io import PathManager

from .coco import load_coco_json, load_sem_seg

__all__ = ["register_coco_panoptic", "register_coco_panoptic_separated"]


def load_coco_panoptic_json(json_file: str, image_dir: str, gt_dir: str, meta: dict) -> list[dict]:
    """Samples of a dataset in COCO's panoptic format, in the order of the file.

    Args:
        image_dir: `a.jpg` in it belongs to `a.png` in `gt_dir`.
        meta: with thing_dataset_id_to_contiguous_id and stuff_dataset_id_to_contiguous_id.

    Returns:
        dicts with "file_name", "image_id", "pan_seg_file_name" and "segments_info": the segments
        of the file with contiguous category ids and "isthing".

    Raises:
        FileNotFoundError: the image or the PNG of the first entry is not there.
        ValueError: there is no entry.
        KeyError: a segment is of a category that `meta` does not know.
    """
    with PathManager.open(json_file) as file:
        entries = json.load(file)["annotations"]
    if not entries:
        raise ValueError(f'{json_file}: "annotations" is empty; get the file again')
    samples = [
        {
            "file_name": os.path.join(image_dir, os.path.splitext(entry["file_name"])[0] + ".jpg"),
            "image_id": int(entry["image_id"]),
            "pan_seg_file_name": os.path.join(gt_dir, entry["file_name"]),
            "segments_info": [_convert_segment(s, meta) for s in entry["segments_info"]],
        }
        for entry in entries
    ]
    for key in ("file_name", "pan_seg_file_name"):
        path = samples[0][key]
        if not PathManager.isfile(path):
            raise FileNotFoundError(f"{path}, of which {json_file} speaks, is not there; get it")
    return samples


def _convert_segment(segment: dict, meta: dict) -> dict:
    number = segment["category_id"]
    is_thing = number in meta["thing_dataset_id_to_contiguous_id"]
    kind = "thing" if is_thing else "stuff"
    contiguous = meta[f"{kind}_dataset_id_to_contiguous_id"][number]
    return {**segment, "category_id": contiguous, "isthing": is_thing}


def register_coco_panoptic(
    name: str,
    metadata: dict,
    image_root: str,
    panoptic_root: str,
    panoptic_json: str,
    instances_json: str | None = None,
) -> None:
    """Put a dataset in COCO's panoptic format into the catalogs; read when it is used.

    Things and stuff share one range of contiguous ids.

    Args:
        metadata: with thing_dataset_id_to_contiguous_id and stuff_dataset_id_to_contiguous_id.
        instances_json: the same pictures in COCO's instance format, for evaluation.
    """
    DatasetCatalog.register(
        name, lambda: load_coco_panoptic_json(panoptic_json, image_root, panoptic_root, metadata)
    )
    MetadataCatalog.get(name).set(
        panoptic_root=panoptic_root,
        image_root=image_root,
        panoptic_json=panoptic_json,
        json_file=instances_json,
        evaluator_type="coco_panoptic_seg",
        ignore_label=255,
        label_divisor=1000,
        **metadata,
    )


def register_coco_panoptic_separated(
    name: str,
    metadata: dict,
    image_root: str,
    panoptic_root: str,
    panoptic_json: str,
    sem_seg_root: str,
    instances_json: str,
) -> None:
    """Put NAME_separated and NAME_stuffonly into the catalogs.

    The first has "annotations" from `instances_json` and "sem_seg_file_name" from `sem_seg_root`,
    the second only the latter. Stuff is counted from 1 there; 0 is any thing.
    """
    separated, stuff_only = f"{name}_separated", f"{name}_stuffonly"
    DatasetCatalog.register(
        separated,
        lambda: merge_to_panoptic(
            load_coco_json(instances_json, image_root, separated),
            load_sem_seg(sem_seg_root, image_root),
        ),
    )
    MetadataCatalog.get(separated).set(
        panoptic_root=panoptic_root,
        image_root=image_root,
        panoptic_json=panoptic_json,
        sem_seg_root=sem_seg_root,
        json_file=instances_json,
        evaluator_type="coco_panoptic_seg",
        ignore_label=255,
        **metadata,
    )
    DatasetCatalog.register(stuff_only, lambda: load_sem_seg(sem_seg_root, image_root))
    MetadataCatalog.get(stuff_only).set(
        sem_seg_root=sem_seg_root,
        image_root=image_root,
        evaluator_type="sem_seg",
        ignore_label=255,
        **metadata,
    )


def merge_to_panoptic(detection_dicts: list[dict], sem_seg_dicts: list[dict]) -> list[dict]:
    """Each of the first together with that of the second that has the same "file_name".

    Raises:
        KeyError: there is none for one of the first.
    """
    of_image = {sample["file_name"]: sample for sample in sem_seg_dicts}
    return [{**sample, **of_image[sample["file_name"]]} for sample in detection_dicts]


__getattr__ = _missing_attribute(__name__)
