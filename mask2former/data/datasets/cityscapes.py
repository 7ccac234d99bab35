"""Cityscapes in detectron2's catalog: semantic, instance and panoptic, and a miniature of each.

The layout is that of the downloads, with what datasets/prepare_cityscapes.py adds:

    leftImg8bit/SPLIT/CITY/*_leftImg8bit.png
    gtFine/SPLIT/CITY/*_gtFine_{polygons.json,labelIds.png,instanceIds.png,labelTrainIds.png}
    gtFine/cityscapes_panoptic_SPLIT/*_gtFine_panoptic.png  gtFine/cityscapes_panoptic_SPLIT.json
"""

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pycocotools.mask
from detectron2.structures import BoxMode

from mask2former.data import annotation_masks
from mask2former.data.datasets import advice
from mask2former.data.datasets.catalog import register
from mask2former.data.datasets.panoptic_json import (
    check_listed_files,
    contiguous_segments,
    read_panoptic_json,
)
from mask2former.data.mini.cityscapes import ensure_mini_cityscapes
from mask2former.files import open_picture

CLASSES = json.loads(Path(__file__).with_name("cityscapes.json").read_text(encoding="utf-8"))
# category id of the JSON -> contiguous id
THING_IDS = {row["id"]: row["train_id"] for row in CLASSES if row["is_thing"]}
STUFF_IDS = {row["id"]: row["train_id"] for row in CLASSES if not row["is_thing"]}
IGNORE_LABEL = 255
LABEL_DIVISOR = 1000  # instance id = class id * LABEL_DIVISOR + number; stuff and crowds: class id

PICTURES, LABELS = "leftImg8bit_trainvaltest.zip", "gtFine_trainvaltest.zip"  # the downloads
IMAGE_SUFFIX = "_leftImg8bit.png"


def load_cityscapes_semantic(image_dir: str, gt_dir: str) -> list[dict]:
    """Dataset dicts with file_name, sem_seg_file_name (train ids), height and width.

    Raises:
        FileNotFoundError: there are no images, or images without labels.
    """
    images = _find_images(image_dir)
    labels = _find_labels(images, image_dir, gt_dir, "labelTrainIds.png")
    return [
        {"file_name": image, "sem_seg_file_name": label, **_image_size(image)}
        for image, label in zip(images, labels)
    ]


def load_cityscapes_instances(image_dir: str, gt_dir: str) -> list[dict]:
    """Dataset dicts with annotations: category_id (0..7), bbox, iscrowd, segmentation (RLE).

    The masks are read from *_instanceIds.png, so that holes and occlusions are exact.

    Raises:
        FileNotFoundError: there are no images, or images without labels.
    """
    images = _find_images(image_dir)
    ids = _find_labels(images, image_dir, gt_dir, "instanceIds.png")
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        annotations = list(threads.map(_read_instances, ids))
    return [
        {
            "file_name": image,
            "image_id": os.path.basename(image),
            **_image_size(image),
            "annotations": annos,
        }
        for image, annos in zip(images, annotations)
    ]


def load_cityscapes_panoptic(image_dir: str, gt_dir: str, gt_json: str) -> list[dict]:
    """Dataset dicts with pan_seg_file_name, sem_seg_file_name and segments_info.

    Args:
        image_dir: leftImg8bit/SPLIT.
        gt_dir: gtFine/cityscapes_panoptic_SPLIT, the panoptic PNGs.
        gt_json: gtFine/cityscapes_panoptic_SPLIT.json. Its category ids become train ids.

    Raises:
        FileNotFoundError: there are no images, no panoptic files, or images without labels.
        ValueError: the JSON is broken or of another dataset.
    """
    images = _find_images(image_dir)
    prepare = _prepare_command(gt_json)
    annotations, sizes = read_panoptic_json(gt_json, prepare)
    of_image = {entry["image_id"]: entry for entry in annotations}
    without = [i for i in images if _image_id(i) not in of_image or _image_id(i) not in sizes]
    if without:
        raise FileNotFoundError(
            f"{len(without)} of {len(images)} images in {image_dir} have no entry in {gt_json} "
            f"(the first: {without[0]}); delete this file and {prepare}"
        )
    semantic = _find_labels(
        images, image_dir, gt_dir.replace("cityscapes_panoptic_", ""), "labelTrainIds.png"
    )
    dicts = []
    for image, label in zip(images, semantic):
        entry, size = of_image[_image_id(image)], sizes[_image_id(image)]
        dicts.append(
            {
                "file_name": image,
                "image_id": entry["image_id"],
                "height": size["height"],
                "width": size["width"],
                "sem_seg_file_name": label,
                "pan_seg_file_name": os.path.join(gt_dir, entry["file_name"]),
                "segments_info": contiguous_segments(entry, THING_IDS, STUFF_IDS, gt_json),
            }
        )
    check_listed_files(dicts, "pan_seg_file_name", gt_dir, gt_json, prepare)
    return dicts


def register_all_cityscapes(root: str) -> None:
    """Put all Cityscapes datasets under `root` into the catalogs, in place of any of these names.

    The real detectron2 registers the same names on import, with loaders that need a path that
    is not public; ours replace them, so that both providers behave alike.
    """
    _register(root, "cityscapes", "", _nothing)
    _register(root, "mini_cityscapes", "mini_", ensure_mini_cityscapes)


def _register(root: str, directory: str, prefix: str, make: Callable[[str], None]) -> None:
    base = os.path.join(root, directory)
    names = [row["name"] for row in CLASSES]
    colors = [row["color"] for row in CLASSES]
    things = {
        "thing_classes": [row["name"] for row in CLASSES if row["is_thing"]],
        "stuff_classes": names,
    }
    for split in ("train", "val", "test"):
        image_dir = os.path.join(base, "leftImg8bit", split, "")
        gt_dir = os.path.join(base, "gtFine", split, "")
        directories = {"image_dir": image_dir, "gt_dir": gt_dir}
        register(
            f"{prefix}cityscapes_fine_sem_seg_{split}",
            partial(_load, load_cityscapes_semantic, make, base, image_dir, gt_dir),
            evaluator_type="cityscapes_sem_seg",
            ignore_label=IGNORE_LABEL,
            stuff_colors=colors,
            **directories,
            **things,
        )
        register(
            f"{prefix}cityscapes_fine_instance_seg_{split}",
            partial(_load, load_cityscapes_instances, make, base, image_dir, gt_dir),
            evaluator_type="cityscapes_instance",
            **directories,
            **things,
        )
    for split in ("train", "val"):  # the labels of test are not public
        image_root = os.path.join(base, "leftImg8bit", split)
        panoptic_root = os.path.join(base, "gtFine", f"cityscapes_panoptic_{split}")
        panoptic_json = panoptic_root + ".json"
        register(
            f"{prefix}cityscapes_fine_panoptic_{split}",
            partial(
                _load,
                load_cityscapes_panoptic,
                make,
                base,
                image_root,
                panoptic_root,
                panoptic_json,
            ),
            evaluator_type="cityscapes_panoptic_seg",
            ignore_label=IGNORE_LABEL,
            label_divisor=LABEL_DIVISOR,
            image_root=image_root,
            panoptic_root=panoptic_root,
            panoptic_json=panoptic_json,
            gt_dir=os.path.join(base, "gtFine", split),
            # All 19 in both, as detectron2 has it: its Visualizer looks up a stuff segment by
            # its contiguous id, which counts things and stuff together.
            thing_classes=names,
            thing_colors=colors,
            stuff_classes=names,
            stuff_colors=colors,
            thing_dataset_id_to_contiguous_id=THING_IDS,
            stuff_dataset_id_to_contiguous_id=STUFF_IDS,
        )


def _nothing(directory: str) -> None:
    """What is done before real Cityscapes is loaded: it has to be downloaded by hand."""


def _load(
    load: Callable[..., list[dict]], make: Callable[[str], None], base: str, *paths: str
) -> list[dict]:
    make(base)
    return load(*paths)


def _find_images(image_dir: str) -> list[str]:
    root = Path(image_dir).parents[1]
    if not os.path.isdir(image_dir):
        unpack = advice.unpack(str(root.parent), root.name, PICTURES, LABELS)
        raise FileNotFoundError(
            f"{image_dir}: no such directory; {unpack}, then {_prepare_command(image_dir)}"
        )
    images = sorted(str(path) for path in Path(image_dir).glob(f"*/*{IMAGE_SUFFIX}"))
    if not images:
        raise FileNotFoundError(
            f"{image_dir}: no CITY/*{IMAGE_SUFFIX} in it; unpack {PICTURES} in {root}"
        )
    return images


def _find_labels(images: list[str], image_dir: str, gt_dir: str, suffix: str) -> list[str]:
    labels = [_label_file(image, gt_dir, suffix) for image in images]
    missing = [image for image, label in zip(images, labels) if not os.path.isfile(label)]
    if not missing:
        return labels
    raw = [image for image in missing if not os.path.isfile(_label_file(image, gt_dir))]
    if raw:
        raise FileNotFoundError(
            f"{len(raw)} of {len(images)} images in {image_dir} have no labels under {gt_dir} "
            f"(the first: {raw[0]}); unpack {LABELS} in {Path(gt_dir).parents[1]}"
        )
    raise FileNotFoundError(
        f"{len(missing)} of {len(images)} images in {image_dir} have no *_gtFine_{suffix} under "
        f"{gt_dir} (the first: {missing[0]}); {_prepare_command(gt_dir)}"
    )


def _label_file(image: str, gt_dir: str, suffix: str = "polygons.json") -> str:
    city = os.path.basename(os.path.dirname(image))
    return os.path.join(gt_dir, city, f"{_image_id(image)}_gtFine_{suffix}")


def _image_id(image: str) -> str:
    return os.path.basename(image)[: -len(IMAGE_SUFFIX)]


def _prepare_command(path: str) -> str:
    """`path` is a directory or file in ROOT/gtFine or ROOT/leftImg8bit."""
    root = Path(path).parents[1]
    return advice.prepare(str(root.parent), root.name, "prepare_cityscapes")


def _image_size(path: str) -> dict[str, int]:
    with open_picture(path, f"unpack {PICTURES} again") as image:  # reads the header only
        return {"height": image.height, "width": image.width}


def _read_instances(path: str) -> list[dict]:
    with open_picture(path, f"unpack {LABELS} again") as image:
        ids = np.asarray(image)  # (H,W)
    things = list(THING_IDS)
    annotations = []
    for instance_id in np.unique(ids[ids >= min(things)]).tolist():
        is_crowd = instance_id < LABEL_DIVISOR
        class_id = instance_id if is_crowd else instance_id // LABEL_DIVISOR
        if class_id not in things:
            continue
        mask = ids == instance_id
        rle = annotation_masks.encode(mask)
        x, y, width, height = pycocotools.mask.toBbox(rle).tolist()
        annotations.append(
            {
                "iscrowd": is_crowd,
                "category_id": things.index(class_id),
                "bbox": [x, y, x + width, y + height],
                "bbox_mode": BoxMode.XYXY_ABS,
                "segmentation": rle,
            }
        )
    return annotations
