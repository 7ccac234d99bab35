"""ADE20K with all 847 frequent classes in detectron2's catalog: semantic segmentation.

datasets/prepare_ade20k_full_sem_seg.py makes what is read from the download:

    ADE20K_2021_17_01/images/ADE/{training,validation}/                   the download
    ADE20K_2021_17_01/images_detectron2/{training,validation}/*.jpg       of at most 512 pixels
    ADE20K_2021_17_01/annotations_detectron2/{training,validation}/*.tif  class indices, 16 bit
"""

import json
import os
from functools import partial
from pathlib import Path

from mask2former.data.datasets import advice
from mask2former.data.datasets.ade20k import SPLITS
from mask2former.data.datasets.catalog import register
from mask2former.data.datasets.semantic_folders import load_semantic_folders

DIRECTORY = "ADE20K_2021_17_01"
# The order is that of the class indices; `id` is the download's.
CLASSES = json.loads(Path(__file__).with_name("ade20k_full.json").read_text(encoding="utf-8"))
IGNORE_LABEL = 65535


def register_all_ade20k_full(root: str) -> None:
    """Put ADE20K-847 under `root` into the catalogs, in place of any others of these names."""
    base = os.path.join(root, DIRECTORY)
    prepare = advice.prepare(root, DIRECTORY, "prepare_ade20k_full_sem_seg")
    unpack = advice.unpack(root, DIRECTORY, "ADE20K_2021_17_01.zip")
    load = partial(load_semantic_folders, advice=f"{unpack}, then {prepare}", label_advice=prepare)
    for split, directory in SPLITS.items():
        image_root = os.path.join(base, "images_detectron2", directory)
        sem_seg_root = os.path.join(base, "annotations_detectron2", directory)
        register(
            f"ade20k_full_sem_seg_{split}",
            partial(load, image_root, sem_seg_root, ".jpg", ".tif"),
            image_root=image_root,
            sem_seg_root=sem_seg_root,
            evaluator_type="sem_seg",
            ignore_label=IGNORE_LABEL,
            stuff_classes=[row["name"] for row in CLASSES],
        )
