"""ADE20K with 150 classes in detectron2's catalog: semantic, instance (100 things) and panoptic.

The layout is that of the downloads, with what datasets/prepare_ade20k_*.py add:

    ADEChallengeData2016/{images,annotations,annotations_instance}/{training,validation}/
    ADEChallengeData2016/annotations_detectron2/{training,validation}/    class indices
    ADEChallengeData2016/ade20k_instance_{train,val}.json
    ADEChallengeData2016/ade20k_panoptic_{train,val}.json  ade20k_panoptic_{train,val}/
"""

import json
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mask2former.data.datasets import advice
from mask2former.data.datasets.catalog import register
from mask2former.data.datasets.instance_json import load_instance_json
from mask2former.data.datasets.panoptic_json import load_panoptic_json
from mask2former.data.datasets.semantic_folders import load_semantic_folders

DIRECTORY = "ADEChallengeData2016"
CLASSES = json.loads(Path(__file__).with_name("ade20k.json").read_text(encoding="utf-8"))
SPLITS = {"train": "training", "val": "validation"}
IGNORE_LABEL = 255
LABEL_DIVISOR = 1000

THINGS = [row for row in CLASSES if row["is_thing"]]


def segment_color(row: Mapping[str, Any]) -> list[int]:
    """The colour of a class in panoptic PNGs, where a colour is an id and has to be its own.

    In the catalog's colours, which are the official ones, skyscrapers are like roads.
    """
    return row.get("segment_color", row["color"])


def register_all_ade20k(root: str) -> None:
    """Put ADE20K under `root` into the catalogs, in place of any others of these names."""
    for split, directory in SPLITS.items():
        _register_split(root, split, directory)


def _register_split(root: str, split: str, directory: str) -> None:
    base = os.path.join(root, DIRECTORY)
    image_root = os.path.join(base, "images", directory)
    sem_seg_root = os.path.join(base, "annotations_detectron2", directory)
    instance_json = os.path.join(base, f"ade20k_instance_{split}.json")
    panoptic_root = os.path.join(base, f"ade20k_panoptic_{split}")
    panoptic_json = panoptic_root + ".json"
    names = [row["name"] for row in CLASSES]
    colors = [row["color"] for row in CLASSES]
    instance_ids = {row["id"]: index for index, row in enumerate(THINGS)}
    thing_ids = {row["id"]: row["id"] for row in THINGS}
    # Things too: the semantic evaluation asks for all classes here.
    stuff_ids = {row["id"]: row["id"] for row in CLASSES}
    register(
        f"ade20k_sem_seg_{split}",
        partial(load_semantic_folders, image_root, sem_seg_root, **_advice(root, "label", "sem")),
        image_root=image_root,
        sem_seg_root=sem_seg_root,
        evaluator_type="sem_seg",
        ignore_label=IGNORE_LABEL,
        stuff_classes=names,
        stuff_colors=colors,
    )
    register(
        f"ade20k_instance_{split}",
        partial(
            load_instance_json,
            instance_json,
            image_root,
            instance_ids,
            **_advice(root, "json", "ins"),
        ),
        image_root=image_root,
        json_file=instance_json,
        evaluator_type="coco",
        thing_classes=[row["instance_name"] for row in THINGS],
        thing_dataset_id_to_contiguous_id=instance_ids,
    )
    register(
        f"ade20k_panoptic_{split}",
        partial(
            load_panoptic_json,
            panoptic_json,
            image_root,
            panoptic_root,
            thing_ids,
            stuff_ids,
            semantic_dir=sem_seg_root,
            **_advice(root, "json", "sem", "ins", "pan"),
            semantic_advice=advice.prepare(root, DIRECTORY, "prepare_ade20k_sem_seg"),
        ),
        image_root=image_root,
        panoptic_root=panoptic_root,
        panoptic_json=panoptic_json,
        json_file=instance_json,
        evaluator_type="ade20k_panoptic_seg",
        ignore_label=IGNORE_LABEL,
        label_divisor=LABEL_DIVISOR,
        thing_classes=[row["name"] for row in THINGS],
        thing_colors=[row["color"] for row in THINGS],
        stuff_classes=names,
        stuff_colors=colors,
        thing_dataset_id_to_contiguous_id=thing_ids,
        stuff_dataset_id_to_contiguous_id=stuff_ids,
    )


def _advice(root: str, kind: str, *tasks: str) -> dict[str, str]:
    """The advice about the download, and KIND_advice about what the scripts for `tasks` make."""
    archives = ["ADEChallengeData2016.zip"]
    if tasks != ("sem",):
        archives.append("annotations_instance.tar")
    prepare = advice.prepare(root, DIRECTORY, *(f"prepare_ade20k_{task}_seg" for task in tasks))
    unpack = advice.unpack(root, DIRECTORY, *archives)
    return {"advice": f"{unpack}, then {prepare}", f"{kind}_advice": prepare}
