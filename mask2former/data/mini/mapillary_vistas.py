"""Small drawn streets in the layout of Mapillary Vistas v1.2."""

import json
from pathlib import Path

import numpy as np
from panopticapi.utils import id2rgb
from PIL import Image

from mask2former.data import annotation_masks
from mask2former.data.datasets.ade20k import SPLITS
from mask2former.data.datasets.mapillary_vistas import (
    CLASSES,
    DIRECTORY,
    IGNORE_LABEL,
    PANOPTIC_JSON,
)
from mask2former.data.mini.labelled import LabelledScene
from mask2former.data.mini.maker import DEFAULT_SPEC, MiniSpec, make_mini, save_picture
from mask2former.data.mini.relabel import relabel

# Cityscapes' name -> category id. Others have no label.
CATEGORY_IDS = {
    "road": 14,
    "sidewalk": 16,
    "parking": 11,
    "building": 18,
    "wall": 7,
    "fence": 4,
    "pole": 46,
    "traffic light": 49,
    "traffic sign": 51,  # its front
    "vegetation": 31,
    "terrain": 30,
    "sky": 28,
    "person": 20,
    "rider": 21,  # bicyclist
    "car": 56,
    "truck": 62,
    "bus": 55,
    "bicycle": 53,
}


def make_mini_mapillary_vistas(
    root: str | Path, spec: MiniSpec = DEFAULT_SPEC, show_progress: bool = True
) -> None:
    """Draw ROOT/mapillary_vistas. There is nothing to prepare.

    Raises:
        FileExistsError: it is there already.
    """
    make_mini(Path(root) / DIRECTORY, spec, _write, _write_jsons, show_progress)


def _write(root: Path, split: str, number: int, scene: LabelledScene) -> None:
    """SPLIT/{images,labels,instances,panoptic}/ and, for the time being, an entry of the JSON."""
    things = {row["id"] for row in CLASSES if row["is_thing"]}
    labels = np.full(scene.segment_map.shape, IGNORE_LABEL, np.uint8)
    instances = np.full(labels.shape, IGNORE_LABEL * 256, np.uint16)  # class index * 256 + number
    segment_map = np.zeros(labels.shape, np.int32)
    segments = []
    for count, segment in enumerate(relabel(scene, CATEGORY_IDS, things)):
        index = segment.label - 1
        segment_id = segment.label * 256 + count % 256
        labels[segment.mask] = index
        instances[segment.mask] = index * 256 + (count % 256 if segment.label in things else 0)
        segment_map[segment.mask] = segment_id
        segments.append(
            {
                "id": segment_id,
                "category_id": segment.label,
                "iscrowd": int(segment.is_crowd),
                "area": int(segment.mask.sum()),
                "bbox": annotation_masks.box(segment.mask),
            }
        )
    base, stem = root / SPLITS[split], f"mini_{split}_{number:06d}"
    save_picture(scene.image, base / "images" / f"{stem}.jpg")
    save_picture(instances, base / "instances" / f"{stem}.png")
    save_picture(id2rgb(segment_map), base / "panoptic" / f"{stem}.png")
    _save_labels(labels, base / "labels" / f"{stem}.png")
    entry = {"image_id": stem, "file_name": f"{stem}.png", "segments_info": segments}
    (base / "panoptic" / f"{stem}.json").write_text(json.dumps(entry))


def _write_jsons(root: Path) -> None:
    """SPLIT/panoptic/panoptic_2018.json from its entries."""
    for directory in SPLITS.values():
        panoptic = root / directory / "panoptic"
        files = sorted(panoptic.glob("*.json"))
        annotations = [json.loads(file.read_text()) for file in files]
        images = []
        for entry in annotations:
            with Image.open(panoptic / entry["file_name"]) as picture:
                width, height = picture.size
            name = f"{entry['image_id']}.jpg"
            images.append(
                {"id": entry["image_id"], "file_name": name, "width": width, "height": height}
            )
        for file in files:
            file.unlink()
        categories = [
            {
                "id": row["id"],
                "name": row["name"],
                "isthing": int(row["is_thing"]),
                "color": row["color"],
            }
            for row in CLASSES
        ]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (panoptic / PANOPTIC_JSON).write_text(json.dumps(content))


def _save_labels(labels: np.ndarray, path: Path) -> None:
    """As a palette picture: indices that look like colours, as the download's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(labels)
    picture.putpalette([channel for row in CLASSES for channel in row["color"]] + [0, 0, 0])
    picture.save(path)
