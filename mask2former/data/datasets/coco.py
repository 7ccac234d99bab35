"""COCO 2017 in detectron2's catalog: instances, and its panoptic segments in four forms.

The layout is that of the downloads, with what
datasets/prepare_coco_semantic_annos_from_panoptic_annos.py adds:

    {train,val,test}2017/*.jpg
    annotations/{instances,panoptic}_{train,val}2017.json
    annotations/image_info_{test,test-dev}2017.json
    panoptic_{train,val}2017/*.png          colours are segment ids
    panoptic_semseg_{train,val}2017/*.png   added: the 133 classes
    panoptic_stuff_{train,val}2017/*.png    added by datasets/prepare_panoptic_fpn.py: 0 any thing,
                                            1... the stuff classes

Things come first, so that a thing's contiguous id is the same in all forms.
"""

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

from mask2former.data.datasets import advice
from mask2former.data.datasets.catalog import register
from mask2former.data.datasets.instance_json import load_instance_json
from mask2former.data.datasets.panoptic_json import check_listed_files, load_panoptic_json
from mask2former.data.datasets.semantic_folders import load_semantic_folders

DIRECTORY = "coco"
CLASSES = json.loads(Path(__file__).with_name("coco.json").read_text(encoding="utf-8"))
THINGS = [row for row in CLASSES if row["is_thing"]]
STUFF = [row for row in CLASSES if not row["is_thing"]]
IGNORE_LABEL = 255
LABEL_DIVISOR = 1000
ANY_THING_COLOR = [82, 18, 128]  # of class 0 where stuff stands apart

ALL_IDS = {row["id"]: i for i, row in enumerate(CLASSES)}  # category id of the JSON -> contiguous
THING_IDS = {row["id"]: ALL_IDS[row["id"]] for row in THINGS}
STUFF_IDS = {row["id"]: ALL_IDS[row["id"]] for row in STUFF}
STUFF_APART_IDS = {row["id"]: i for i, row in enumerate(STUFF, start=1)}

_THING_METADATA = {
    "thing_classes": [row["name"] for row in THINGS],
    "thing_colors": [row["color"] for row in THINGS],
    "thing_dataset_id_to_contiguous_id": THING_IDS,
}
_ALL_METADATA = {
    **_THING_METADATA,
    # All 133: detectron2's Visualizer looks up a stuff segment by its contiguous id, which counts
    # things and stuff together.
    "stuff_classes": [row["name"] for row in CLASSES],
    "stuff_colors": [row["color"] for row in CLASSES],
}
_APART_METADATA = {
    **_THING_METADATA,
    "stuff_classes": [
        "things",
        *(row["name"].replace("-other", "").replace("-merged", "") for row in STUFF),
    ],
    "stuff_colors": [ANY_THING_COLOR, *(row["color"] for row in STUFF)],
    "stuff_dataset_id_to_contiguous_id": {**STUFF_APART_IDS, 0: 0},
}


def load_coco_separated(
    instance_json: str, image_dir: str, semantic_dir: str, *, advice: str, label_advice: str
) -> list[dict]:
    """Dataset dicts with annotations and sem_seg_file_name, each with its own classes.

    Args:
        advice: what to do about missing files; it ends a sentence.
        label_advice: the same about missing label maps.

    Raises:
        FileNotFoundError: a file or directory is missing.
        ValueError: the JSON is broken.
    """
    dicts = load_instance_json(instance_json, image_dir, THING_IDS, advice=advice)
    for sample in dicts:
        stem = os.path.splitext(os.path.basename(sample["file_name"]))[0]
        sample["sem_seg_file_name"] = os.path.join(semantic_dir, f"{stem}.png")
    check_listed_files(dicts, "sem_seg_file_name", semantic_dir, instance_json, label_advice)
    return dicts


def register_all_coco(root: str) -> None:
    """Put COCO under `root` into the catalogs, in place of any datasets of these names."""
    for split in ("train", "val"):
        _register_instances(root, split, f"instances_{split}2017", f"{split}2017")
        _register_panoptic(root, split)
    for split in ("test", "test-dev"):  # the pictures of the second are among those of the first
        _register_instances(root, split, f"image_info_{split}2017", "test2017")


def _register_instances(root: str, split: str, annotations: str, images: str) -> None:
    base = os.path.join(root, DIRECTORY)
    instance_json = os.path.join(base, "annotations", f"{annotations}.json")
    image_dir = os.path.join(base, images)
    archive = "image_info_test2017.zip" if "test" in split else "annotations_trainval2017.zip"
    download = advice.unpack(root, DIRECTORY, f"{images}.zip", archive)
    register(
        f"coco_2017_{split}",
        partial(load_instance_json, instance_json, image_dir, THING_IDS, advice=download),
        json_file=instance_json,
        image_root=image_dir,
        evaluator_type="coco",
        **_THING_METADATA,
    )


def _register_panoptic(root: str, split: str) -> None:
    base = os.path.join(root, DIRECTORY)
    name, image_dir = f"coco_2017_{split}_panoptic", os.path.join(base, f"{split}2017")
    instance_json = os.path.join(base, "annotations", f"instances_{split}2017.json")
    panoptic_json = os.path.join(base, "annotations", f"panoptic_{split}2017.json")
    panoptic_dir = os.path.join(base, f"panoptic_{split}2017")
    semantic_dir = os.path.join(base, f"panoptic_semseg_{split}2017")
    stuff_dir = os.path.join(base, f"panoptic_stuff_{split}2017")
    images = {"image_root": image_dir, "ignore_label": IGNORE_LABEL}
    files: dict[str, Any] = {
        **images,
        "panoptic_root": panoptic_dir,
        "panoptic_json": panoptic_json,
        "json_file": instance_json,
        "evaluator_type": "coco_panoptic_seg",
    }
    pictures = f"{split}2017.zip"
    segments = f"panoptic_annotations_trainval2017.zip (and panoptic_{split}2017.zip in it)"
    download = advice.unpack(root, DIRECTORY, pictures, segments)
    prepare, prepare_stuff = (
        advice.prepare(root, DIRECTORY, script)
        for script in ("prepare_coco_semantic_annos_from_panoptic_annos", "prepare_panoptic_fpn")
    )
    load = partial(load_panoptic_json, panoptic_json, image_dir, panoptic_dir, THING_IDS)
    register(
        name,
        partial(load, STUFF_IDS, advice=download),
        label_divisor=LABEL_DIVISOR,
        stuff_dataset_id_to_contiguous_id=STUFF_IDS,
        **files,
        **_ALL_METADATA,
    )
    register(
        f"{name}_with_sem_seg",
        partial(
            load,
            ALL_IDS,
            semantic_dir=semantic_dir,
            advice=f"{download}, then {prepare}",
            semantic_advice=prepare,
        ),
        label_divisor=LABEL_DIVISOR,
        sem_seg_root=semantic_dir,
        stuff_dataset_id_to_contiguous_id=ALL_IDS,  # the semantic evaluator's classes
        **files,
        **_ALL_METADATA,
    )
    register(
        f"{name}_separated",
        partial(
            load_coco_separated,
            instance_json,
            image_dir,
            stuff_dir,
            advice=advice.unpack(
                root, DIRECTORY, pictures, "annotations_trainval2017.zip", segments
            )
            + f", then {prepare_stuff}",
            label_advice=prepare_stuff,
        ),
        sem_seg_root=stuff_dir,
        **files,
        **_APART_METADATA,
    )
    register(
        f"{name}_stuffonly",
        partial(
            load_semantic_folders,
            image_dir,
            stuff_dir,
            advice=f"{download}, then {prepare_stuff}",
            label_advice=prepare_stuff,
        ),
        sem_seg_root=stuff_dir,
        evaluator_type="sem_seg",
        **images,
        **_APART_METADATA,
    )
