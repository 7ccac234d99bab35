"""Drawn streets in Cityscapes' layout, and what a model might predict for them."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from benchmarks.drawn_predictions import (
    disturbed_labels,
    disturbed_mask,
    disturbed_objects,
    disturbed_segments,
)
from mask2former.data.mini.cityscapes import ensure_mini_cityscapes
from mask2former.data.mini.maker import MiniSpec

# isort: split
from detectron2.data import MetadataCatalog
from detectron2.structures import Instances
from panopticapi.utils import rgb2id

from mask2former.data.datasets.catalog import register
from mask2former.evaluation.cityscapes import LABEL_DIVISOR

NAME = "drawn streets"
NUM_INSTANCES, NUM_BLOCKS = 100, 40  # instances found in an image; wrong blocks


class Street(NamedTuple):
    """A picture in Cityscapes' layout: what is known of it, and what was predicted."""

    sample: dict  # of the dataset
    gt_files: dict[str, Path]  # kind -> PNG
    labels: np.ndarray  # (H,W) train ids
    instances: Instances
    panoptic: tuple[np.ndarray, list[dict]]  # ids (H,W), segments with Cityscapes' label ids


def draw_streets(folder: Path, size: tuple[int, int], num_images: int) -> list[Street]:
    """Draw pictures with ground truth, as the dataset NAME, and predict something."""
    root = folder / "mini_cityscapes"
    ensure_mini_cityscapes(root, MiniSpec(*size, num_train=1, num_val=num_images), num_test=0)
    pngs = root / "gtFine" / "cityscapes_panoptic_val"
    panoptic_json = pngs.with_suffix(".json")
    metadata = MetadataCatalog.get("mini_cityscapes_fine_panoptic_val").as_dict()
    metadata |= {
        "gt_dir": str(root / "gtFine" / "val"),
        "panoptic_root": str(pngs),
        "panoptic_json": str(panoptic_json),
    }
    del metadata["name"]
    streets: list[Street] = []
    register(NAME, lambda: [street.sample for street in streets], **metadata)
    images = json.loads(panoptic_json.read_text("utf-8"))["annotations"]
    streets += [
        _predict(root, image, pngs / image["file_name"], np.random.default_rng(number))
        for number, image in enumerate(tqdm(images, desc="predicting", leave=False))
    ]
    return streets


def _predict(root: Path, image: dict, segments_png: Path, rng: np.random.Generator) -> Street:
    stem = image["image_id"]
    city = stem.split("_")[0]
    files = {
        kind: root / "gtFine" / "val" / city / f"{stem}_gtFine_{kind}.png"
        for kind in ("labelIds", "instanceIds", "labelTrainIds")
    }
    file_name = f"leftImg8bit/val/{city}/{stem}_leftImg8bit.png"
    num_classes = len(MetadataCatalog.get(NAME).stuff_classes)
    segments = [segment for segment in image["segments_info"] if not segment["iscrowd"]]
    return Street(
        {"file_name": file_name, "image_id": stem},
        files,
        disturbed_labels(_read(files["labelTrainIds"]), num_classes, NUM_BLOCKS, rng),
        _predict_instances(_read(files["instanceIds"]), rng),
        disturbed_segments(rgb2id(_read(segments_png)), segments, rng),
    )


def _read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def _predict_instances(instance_ids: np.ndarray, rng: np.random.Generator) -> Instances:
    to_class = MetadataCatalog.get(NAME).thing_dataset_id_to_contiguous_id  # of label ids
    ids = [i for i in np.unique(instance_ids).tolist() if i // LABEL_DIVISOR in to_class]
    classes = [to_class[i // LABEL_DIVISOR] for i in ids]
    found = disturbed_objects(classes, NUM_INSTANCES, list(to_class.values()), rng)
    masks = [disturbed_mask(instance_ids == ids[index], rng) for index, _, _ in found]
    instances = Instances(instance_ids.shape)
    instances.pred_masks = torch.from_numpy(np.array(masks).reshape(-1, *instance_ids.shape))
    instances.pred_classes = torch.tensor([label for _, label, _ in found], dtype=torch.int64)
    instances.scores = torch.tensor([score for _, _, score in found])
    return instances
