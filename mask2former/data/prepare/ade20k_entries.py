"""From a picture of ADE20K to its entries in the instance and the panoptic JSON, and its PNG.

What they say is what the official conversion says, so that scores compare with published ones.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from panopticapi.utils import id2rgb, rgb2id
from PIL import Image

from mask2former.data import annotation_masks
from mask2former.data.datasets.ade20k import CLASSES, THINGS, segment_color
from mask2former.files import atomic_file, open_picture

ARCHIVE = "ADEChallengeData2016.zip"
INSTANCE_ARCHIVE = "annotations_instance.tar"

_STUFF_IDS = {row["id"]: rgb2id(segment_color(row)) for row in CLASSES if not row["is_thing"]}
_ID_STEP = rgb2id((29, 101, 53))  # odd: repeated, it comes by all ids


def instance_entry(picture: Path) -> dict:
    """The picture and its annotations in COCO's format, without their ids.

    Raises:
        FileNotFoundError: there is no PNG of its instances.
        ValueError: a file is broken or of another dataset.
    """
    image = _image_entry(picture)
    annotations = []
    for category, mask in _read_instances(picture, image):
        rle = annotation_masks.encode(mask)
        annotations.append(
            {
                "image_id": image["id"],
                "category_id": category,
                "iscrowd": 0,
                "bbox": annotation_masks.box(mask),
                "area": int(mask.sum()),
                "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
            }
        )
    return {"image": image, "annotations": annotations}


def panoptic_entry(picture: Path, pngs: Path) -> dict:
    """The picture and its annotation in COCO's panoptic format; writes PNGS/*.png.

    A thing of annotations_instance hides the stuff of annotations. What annotations alone call a
    thing belongs to no segment: nobody told its instances apart.

    Raises:
        FileNotFoundError: there is no PNG of its labels or of its instances.
        ValueError: a file is broken or of another dataset.
    """
    image = _image_entry(picture)
    labels = _read_beside(picture, image, "annotations", read_labels)  # (H,W)
    segment_map = np.zeros(labels.shape, np.int32)  # (H,W)
    segments = []
    for value in np.unique(labels).tolist():
        if value - 1 in _STUFF_IDS:
            mask = labels == value
            segments.append(_segment(_STUFF_IDS[value - 1], value - 1, mask))
            segment_map[mask] = _STUFF_IDS[value - 1]
    taken = {0, *_STUFF_IDS.values()}
    for category, mask in _read_instances(picture, image):
        segment_id = rgb2id(segment_color(CLASSES[category]))
        while segment_id in taken:
            segment_id = (segment_id + _ID_STEP) % 256**3
        taken.add(segment_id)
        segments.append(_segment(segment_id, category, mask))
        segment_map[mask] = segment_id
    name = f"{picture.stem}.png"
    with atomic_file(pngs / name) as temporary:
        Image.fromarray(id2rgb(segment_map)).save(temporary, format="PNG")
    annotation = {"image_id": image["id"], "file_name": name, "segments_info": segments}
    return {"image": image, "annotation": annotation}


def merge_instances(entries: Sequence[Mapping]) -> dict:
    """The content of the JSON from all `instance_entry`; ids count from 1."""
    annotations = [annotation for entry in entries for annotation in entry["annotations"]]
    return {
        "images": [entry["image"] for entry in entries],
        "categories": [{"id": row["id"], "name": row["instance_name"]} for row in THINGS],
        "annotations": [
            {"id": number, **annotation} for number, annotation in enumerate(annotations, start=1)
        ],
    }


def merge_panoptic(entries: Sequence[Mapping]) -> dict:
    """The content of the JSON from all `panoptic_entry`."""
    return {
        "images": [entry["image"] for entry in entries],
        "annotations": [entry["annotation"] for entry in entries],
        "categories": [
            {
                "id": row["id"],
                "name": row["name"],
                "isthing": int(row["is_thing"]),
                "color": segment_color(row),
            }
            for row in CLASSES
        ],
    }


def read_labels(path: Path) -> np.ndarray:
    """A label map of annotations/: (H,W) uint8, 0 for no class and 1..150.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is broken or of another dataset.
    """
    with open_picture(path, f"unpack {ARCHIVE} again") as picture:
        labels = np.asarray(picture)
    if labels.dtype != np.uint8 or labels.ndim != 2 or labels.max() > len(CLASSES):
        raise ValueError(
            f"{path}: holds {labels.dtype} of shape {labels.shape} up to {labels.max()}, and label "
            f"maps have 8 bit, one channel, 0 to {len(CLASSES)}; unpack {ARCHIVE} again"
        )
    return labels


def _read_ids(path: Path) -> np.ndarray:
    """A picture of annotations_instance/: (H,W,3) uint8, class 1..100, instance 1.., unused."""
    with open_picture(path, f"unpack {INSTANCE_ARCHIVE} again") as picture:
        ids = np.asarray(picture)
    if ids.dtype != np.uint8 or ids.ndim != 3:
        raise ValueError(
            f"{path}: holds {ids.dtype} of shape {ids.shape}, and pictures of instances have 8 "
            f"bit and three channels; unpack {INSTANCE_ARCHIVE} again"
        )
    return ids


def _read_instances(picture: Path, image: Mapping) -> Iterator[tuple[int, np.ndarray]]:
    """For each instance the id of its class among the 150, and its mask (H,W)."""
    ids = _read_beside(picture, image, "annotations_instance", _read_ids)
    for number in np.unique(ids[..., 1]).tolist():
        if number == 0:
            continue
        mask = ids[..., 1] == number
        classes = np.unique(ids[..., 0][mask]).tolist()
        if len(classes) != 1 or not 1 <= classes[0] <= len(THINGS):
            raise ValueError(
                f"{_beside(picture, 'annotations_instance')}: instance {number} is of the classes "
                f"{classes}, and each is of one from 1 to {len(THINGS)}; unpack "
                f"{INSTANCE_ARCHIVE} again"
            )
        yield THINGS[classes[0] - 1]["id"], mask


def _read_beside(
    picture: Path, image: Mapping, kind: str, read: Callable[[Path], np.ndarray]
) -> np.ndarray:
    """What ROOT/KIND/SPLIT says of a picture ROOT/images/SPLIT, of the picture's size."""
    path = _beside(picture, kind)
    pixels = read(path)
    size = (image["height"], image["width"])
    if pixels.shape[:2] != size:
        raise ValueError(
            f"{path}: {pixels.shape[0]}x{pixels.shape[1]} pixels, and {picture} has "
            f"{size[0]}x{size[1]}; one of the two is of another download"
        )
    return pixels


def _beside(picture: Path, kind: str) -> Path:
    return picture.parents[2] / kind / picture.parent.name / f"{picture.stem}.png"


def _image_entry(picture: Path) -> dict:
    with open_picture(picture, f"unpack {ARCHIVE} again") as image:
        width, height = image.size
    return {"id": picture.stem, "file_name": picture.name, "width": width, "height": height}


def _segment(segment_id: int, category: int, mask: np.ndarray) -> dict:
    """A stuff keeps the area and the box that it had before things hid it: published PQ does."""
    return {
        "id": segment_id,
        "category_id": category,
        "area": int(mask.sum()),
        "bbox": annotation_masks.box(mask),
        "iscrowd": 0,
    }
