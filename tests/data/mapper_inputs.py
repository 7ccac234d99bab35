"""Pictures with labels, objects and segments for mappers, and how a mapper must refuse one."""

from pathlib import Path

import numpy as np
import pytest
from detectron2.config import CfgNode
from detectron2.structures import BoxMode
from panopticapi.utils import id2rgb
from PIL import Image

from mask2former.data import build_mapper
from mask2former.data.errors import SampleError

NUM_CLASSES = 9


def save(folder: Path, image: np.ndarray, label: np.ndarray | None = None, **entries) -> dict:
    """A dataset dict of `image` (H,W) or (H,W,3), with sem_seg_file_name if there is a label."""
    sample = {"file_name": str(folder / "image.png"), **entries}
    Image.fromarray(image).save(sample["file_name"])
    sample["height"], sample["width"] = image.shape[:2]
    if label is not None:
        sample["sem_seg_file_name"] = str(folder / "label.png")
        Image.fromarray(label).save(sample["sem_seg_file_name"])
    return sample


def save_segments(folder: Path, ids: np.ndarray, segments: list[dict]) -> dict:
    """A dataset dict of a noisy picture with panoptic `ids` (H,W)."""
    image = np.random.RandomState(0).randint(0, 256, (*ids.shape, 3)).astype(np.uint8)
    path = str(folder / "segments.png")
    Image.fromarray(id2rgb(ids)).save(path)
    return save(folder, image, pan_seg_file_name=path, segments_info=segments)


def refuses(cfg: CfgNode, sample: dict, *texts: str) -> str:
    """Map a sample in training; it must fail with one sentence that has all the texts."""
    with pytest.raises(SampleError) as error:
        build_mapper(cfg, is_train=True)(sample)
    message = str(error.value)
    assert "\n" not in message and "; " in message
    assert all(text in message for text in texts), message
    return message


def made_sample(folder: Path, seed: int) -> dict:
    """A picture of coloured blocks that has everything a mapper could ask for."""
    rng = np.random.RandomState(seed)
    height, width = [(100, 150), (121, 86), (60, 205)][seed % 3]

    def blocks(values: np.ndarray, side: int) -> np.ndarray:
        shape = height // side + 1, width // side + 1
        picked = values[rng.randint(0, len(values), shape)]
        return picked.repeat(side, 0).repeat(side, 1)[:height, :width]

    image = (
        blocks(rng.randint(0, 256, (50, 3)), 4) // 2 + blocks(rng.randint(0, 256, (9, 3)), 25) // 2
    )
    label = blocks(np.append(np.arange(NUM_CLASSES), 255), 10)
    segment_ids = rng.randint(1, 256**3 - 1, 9)
    ids = blocks(np.append(0, segment_ids), 15)
    segments = [
        {"id": int(i), "category_id": int(rng.randint(NUM_CLASSES)), "iscrowd": int(n == 3)}
        for n, i in enumerate(segment_ids[:8])
    ]
    sample = save_segments(folder, ids, segments)
    sample.update(save(folder, image.astype(np.uint8), label.astype(np.uint8)))
    sample["annotations"] = [
        _round_object(rng, height, width, is_crowd=number == 2) for number in range(6)
    ]
    return sample


def _round_object(rng: np.random.RandomState, height: int, width: int, is_crowd: bool) -> dict:
    angles = np.linspace(0, 2 * np.pi, 13)[:-1]
    center = rng.uniform(0, 1, 2) * (width, height)
    radii = rng.uniform(8, 25, (12, 1))
    corners = center + radii * np.stack([np.cos(angles), np.sin(angles)], 1)
    corners = corners.clip(0, (width, height)).round(2)
    return {
        "category_id": int(rng.randint(NUM_CLASSES)),
        "iscrowd": int(is_crowd),
        "bbox": [*corners.min(0), *corners.max(0)],
        "bbox_mode": BoxMode.XYXY_ABS,
        "segmentation": [corners.reshape(-1).tolist()],
    }


# Recipes in which everything that they have happens; what differs from these is below.
_COMMON = {
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": NUM_CLASSES,
    "INPUT.FORMAT": "RGB",
    "INPUT.MIN_SIZE_TRAIN": (50, 75, 110, 150),
    "INPUT.MAX_SIZE_TRAIN": 300,
    "INPUT.COLOR_AUG_SSD": True,
    "INPUT.RANDOM_FLIP": "horizontal",
    "INPUT.CROP.ENABLED": True,
    "INPUT.CROP.TYPE": "absolute",
    "INPUT.CROP.SIZE": (60, 70),
    "INPUT.IMAGE_SIZE": 80,
}
_OWN = {
    "mask_former_semantic": {
        "INPUT.SIZE_DIVISIBILITY": 80,
        "INPUT.CROP.SINGLE_CATEGORY_MAX_AREA": 0.75,
    },
    "mask_former_instance": {"INPUT.SIZE_DIVISIBILITY": 80},
    "mask_former_panoptic": {"INPUT.SIZE_DIVISIBILITY": 80},
    "coco_instance_lsj": {},
    "coco_panoptic_lsj": {},
    "detr_panoptic": {"INPUT.CROP.TYPE": "absolute_range", "INPUT.CROP.SIZE": (40, 150)},
}


def set_recipe(cfg: CfgNode, name: str) -> None:
    settings = {**_COMMON, **_OWN[name], "INPUT.DATASET_MAPPER_NAME": name}
    cfg.merge_from_list([item for pair in settings.items() for item in pair])
