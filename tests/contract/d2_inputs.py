"""What several contract tests feed to detectron2, and the errors with which it may refuse it."""

import numpy as np
from detectron2.structures import BoxMode

REFUSED = (AssertionError, ValueError, TypeError)
IGNORE = 255
POLYGON = [1.0, 1, 5, 1, 5, 4, 1, 4]


def make_samples(num):
    """Dataset dicts by turns of a portrait image of class 0 and a landscape one of class 1."""
    return [
        {
            "image_id": i,
            "file_name": f"{i}.png",
            "width": 30 + 10 * (i % 2),
            "height": 35,
            "annotations": [{"category_id": i % 2, "iscrowd": 0, "bbox": [0, 0, 5, 5]}],
        }
        for i in range(num)
    ]


def annotation(**changes):
    """An object in an image of 4x6 pixels."""
    values = {
        "bbox": [1, 1, 4, 3],
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": 3,
        "iscrowd": 0,
        "segmentation": [list(POLYGON)],
    }
    return {**values, **changes}


def image_and_sem_seg():  # (40,60,3) uint8, (40,60) uint8
    rows, columns = np.mgrid[:40, :60]
    image = np.stack([rows * 4, columns * 3, rows + columns], axis=2).astype(np.uint8)
    sem_seg = ((rows // 10 + columns // 20) % 3).astype(np.uint8)
    sem_seg[rows % 7 == 0] = IGNORE
    return image, sem_seg
