"""COCO-Stuff-10k in detectron2's catalog: 80 things and 91 stuffs, semantic.

The layout is that of the download, with what datasets/prepare_coco_stuff_10k_v1.0_sem_seg.py adds:

    images/*.jpg  annotations/*.mat  imageLists/{train,test,all}.txt
    images_detectron2/{train,test}/*.jpg       added: the pictures of each list
    annotations_detectron2/{train,test}/*.png  added: the 171 classes, 255 unlabelled
"""

import json
import os
from functools import partial
from pathlib import Path

from mask2former.data.datasets import advice, coco
from mask2former.data.datasets.catalog import register
from mask2former.data.datasets.semantic_folders import load_semantic_folders

DIRECTORY = "coco/coco_stuff_10k"
STUFF = json.loads(Path(__file__).with_name("coco_stuff_10k.json").read_text(encoding="utf-8"))
CLASSES = [*coco.THINGS, *STUFF]
IDS = {row["id"]: i for i, row in enumerate(CLASSES)}  # COCO-Stuff's ids -> contiguous
IGNORE_LABEL = 255


def register_all_coco_stuff_10k(root: str) -> None:
    """Put COCO-Stuff-10k under `root` into the catalogs, in place of any of these names."""
    base = os.path.join(root, DIRECTORY)
    prepare = advice.prepare(root, DIRECTORY, "prepare_coco_stuff_10k_v1.0_sem_seg")
    unpack = advice.unpack(root, DIRECTORY, "cocostuff-10k-v1.0.zip")
    load = partial(load_semantic_folders, advice=f"{unpack}, then {prepare}", label_advice=prepare)
    for split in ("train", "test"):
        image_dir = os.path.join(base, "images_detectron2", split)
        label_dir = os.path.join(base, "annotations_detectron2", split)
        register(
            f"coco_2017_{split}_stuff_10k_sem_seg",
            partial(load, image_dir, label_dir),
            image_root=image_dir,
            sem_seg_root=label_dir,
            evaluator_type="sem_seg",
            ignore_label=IGNORE_LABEL,
            stuff_dataset_id_to_contiguous_id=IDS,
            stuff_classes=[row["name"] for row in CLASSES],
        )
