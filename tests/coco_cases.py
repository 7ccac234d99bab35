"""Hand-made ground truth in COCO's instance format, and predictions for it."""

import json

import numpy as np
import pycocotools.mask as mask_util
import torch
from detectron2.structures import Boxes, Instances

SIZE = (100, 120)


def rectangle(y, x, height, width):  # -> (H,W) bool
    mask = np.zeros(SIZE, bool)
    mask[y : y + height, x : x + width] = True
    return mask


def box_of(mask):
    """x, y, width, height."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    y, x = int(rows[0]), int(columns[0])
    return [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y]


def truth_of(image_id, category_id, mask, iscrowd=0):
    rle = mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {
        "image_id": image_id,
        "category_id": category_id,
        "bbox": box_of(mask),
        "area": int(mask.sum()),
        "iscrowd": iscrowd,
        "segmentation": {**rle, "counts": rle["counts"].decode()},
    }


def write_truth(path, annotations, categories, num_images=2):
    """A JSON file: images 1, 2, ..; `categories` are {id: name}; None for no annotations."""
    content = {
        "info": {},
        "images": [
            {"id": i + 1, "height": SIZE[0], "width": SIZE[1], "file_name": f"{i + 1}.jpg"}
            for i in range(num_images)
        ],
        "categories": [{"id": i, "name": name} for i, name in categories.items()],
    }
    if annotations is not None:
        content["annotations"] = [{**a, "id": i + 1} for i, a in enumerate(annotations)]
    path.write_text(json.dumps(content))
    return str(path)


def found(*instances):
    """The Instances of an image from (contiguous class, score, mask) of each."""
    result = Instances(SIZE)
    masks = np.array([mask for _, _, mask in instances]).reshape(-1, *SIZE).astype(bool)
    boxes = [box_of(mask) for mask in masks]
    result.pred_boxes = Boxes(
        torch.tensor([[x, y, x + w, y + h] for x, y, w, h in boxes]).reshape(-1, 4).float()
    )
    result.pred_masks = torch.from_numpy(masks)
    result.pred_classes = torch.tensor([c for c, _, _ in instances], dtype=torch.int64)
    result.scores = torch.tensor([float(score) for _, score, _ in instances])
    return result


def draw(seed, num_images=4, num_classes=3, category_id=lambda c: c, score=None):
    """Random annotations of images 1, 2, .., and what is predicted for each: (class, score, mask).

    Some are crowds, some predictions are wrong, some doubled; images may be empty.
    """
    generator = np.random.default_rng(seed)
    annotations, predictions = [], []
    for image_id in range(1, num_images + 1):
        instances = []
        for _ in range(int(generator.integers(0, 6))):
            y, x, height, width = (
                int(n) for n in generator.integers((0, 0, 6, 6), (50, 60, 45, 55))
            )
            mask, label = rectangle(y, x, height, width), int(generator.integers(num_classes))
            annotations.append(
                truth_of(image_id, category_id(label), mask, int(generator.random() < 0.15))
            )
            for _ in range(int(generator.integers(0, 3))):
                moved = np.roll(mask, generator.integers(-4, 5, 2), (0, 1))
                wrong = generator.random() < 0.2
                instances.append(
                    (
                        int(generator.integers(num_classes)) if wrong else label,
                        round(float(generator.random()), 3),
                        moved,
                    )
                )
        predictions.append(instances)
    return annotations, predictions
