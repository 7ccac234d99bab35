"""Mapillary Vistas v1.2 in detectron2's catalog: semantic and panoptic, 65 classes.

Nothing is to be prepared; the layout is that of the download:

    mapillary_vistas/{training,validation}/{images,labels,instances,panoptic}/
    mapillary_vistas/{training,validation}/panoptic/panoptic_2018.json

Label maps hold class indices, and 65 for what is not labelled.
"""

import json
import os
from functools import partial
from pathlib import Path

import numpy as np

from mask2former.data.datasets.ade20k import SPLITS
from mask2former.data.datasets.catalog import register
from mask2former.data.datasets.panoptic_json import load_panoptic_json
from mask2former.data.datasets.semantic_folders import load_semantic_folders
from mask2former.files import open_picture

DIRECTORY = "mapillary_vistas"
CLASSES = json.loads(Path(__file__).with_name("mapillary_vistas.json").read_text(encoding="utf-8"))
IGNORE_LABEL = 65
LABEL_DIVISOR = 1000
PANOPTIC_JSON = "panoptic_2018.json"
PANOPTIC_JSON_OF_V2 = "panoptic_2020.json"


def load_mapillary_semantic(base: str) -> list[dict]:
    """Dataset dicts with file_name and sem_seg_file_name.

    Args:
        base: mapillary_vistas/{training,validation}.

    Raises:
        FileNotFoundError: files are missing, or lie as those of v2.0 do.
        ValueError: the labels are of v2.0, or colours.
    """
    images, labels = os.path.join(base, "images"), os.path.join(base, "labels")
    _check_version(base, labels)
    dicts = load_semantic_folders(images, labels, advice=_advice(base))
    _check_label(dicts[0]["sem_seg_file_name"])
    return dicts


def load_mapillary_panoptic(base: str) -> list[dict]:
    """Dataset dicts with pan_seg_file_name, sem_seg_file_name and segments_info.

    Args:
        base: mapillary_vistas/{training,validation}.

    Raises:
        FileNotFoundError: files are missing, or lie as those of v2.0 do.
        ValueError: the labels or the JSON are broken or of v2.0.
    """
    panoptic = os.path.join(base, "panoptic")
    _check_version(base, panoptic)
    dicts = load_panoptic_json(
        os.path.join(panoptic, PANOPTIC_JSON),
        os.path.join(base, "images"),
        panoptic,
        _contiguous_ids(things_only=True),
        _contiguous_ids(things_only=False),
        semantic_dir=os.path.join(base, "labels"),
        advice=_advice(base),
    )
    _check_label(dicts[0]["sem_seg_file_name"])
    return dicts


def register_all_mapillary_vistas(root: str) -> None:
    """Put Mapillary Vistas under `root` into the catalogs, in place of any of these names."""
    names = [row["name"] for row in CLASSES]
    colors = [row["color"] for row in CLASSES]
    for split, directory in SPLITS.items():
        base = os.path.join(root, DIRECTORY, directory)
        image_root = os.path.join(base, "images")
        register(
            f"mapillary_vistas_sem_seg_{split}",
            partial(load_mapillary_semantic, base),
            image_root=image_root,
            sem_seg_root=os.path.join(base, "labels"),
            evaluator_type="sem_seg",
            ignore_label=IGNORE_LABEL,
            stuff_classes=names,
            stuff_colors=colors,
        )
        register(
            f"mapillary_vistas_panoptic_{split}",
            partial(load_mapillary_panoptic, base),
            image_root=image_root,
            panoptic_root=os.path.join(base, "panoptic"),
            panoptic_json=os.path.join(base, "panoptic", PANOPTIC_JSON),
            json_file=None,
            evaluator_type="mapillary_vistas_panoptic_seg",
            ignore_label=IGNORE_LABEL,
            label_divisor=LABEL_DIVISOR,
            # All 65 in both: a picture of segments looks a class up by its contiguous id, which
            # counts things and stuff together.
            thing_classes=names,
            thing_colors=colors,
            stuff_classes=names,
            stuff_colors=colors,
            thing_dataset_id_to_contiguous_id=_contiguous_ids(things_only=True),
            stuff_dataset_id_to_contiguous_id=_contiguous_ids(things_only=False),
        )


def _contiguous_ids(things_only: bool) -> dict[int, int]:
    return {
        row["id"]: index for index, row in enumerate(CLASSES) if row["is_thing"] or not things_only
    }


def _advice(base: str) -> str:
    return (
        f"unpack Mapillary Vistas v1.2 so that {base} holds images/, labels/ and panoptic/, or set "
        f"DETECTRON2_DATASETS to the directory that holds {DIRECTORY}/"
    )


def _check_version(base: str, directory: str) -> None:
    """The archive of v2.0 has the labels of v1.2 too, a directory deeper."""
    if os.path.isdir(directory) and not os.path.isfile(
        os.path.join(directory, PANOPTIC_JSON_OF_V2)
    ):
        return
    if os.path.isdir(os.path.join(base, "v1.2")):
        raise FileNotFoundError(
            f"{base}: this is the archive v2.0, and the classes here are those of v1.2; "
            f"move {base}/v1.2/* to {base}"
        )
    if os.path.isdir(directory) or os.path.isdir(os.path.join(base, "v2.0")):
        raise FileNotFoundError(
            f"{base}: labels of Mapillary Vistas v2.0 with its 124 classes; {_advice(base)}"
        )


def _check_label(path: str) -> None:
    """One label map tells of all whether they hold the class indices of v1.2."""
    with open_picture(path, "unpack it again") as picture:
        label = np.asarray(picture)  # (H,W), of a palette picture its indices
    if label.ndim != 2:
        raise ValueError(
            f"{path}: has {label.shape[-1]} channels, and label maps of Mapillary Vistas have "
            "one of class indices; unpack them again instead of converting them to colours"
        )
    if label.max() > IGNORE_LABEL:
        raise ValueError(
            f"{path}: holds class {label.max()}, and Mapillary Vistas v1.2 has 0 to "
            f"{IGNORE_LABEL}; these are labels of v2.0, put those of v1.2 in their place"
        )
