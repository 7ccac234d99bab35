"""Pictures of coloured shapes, and the files that a person would write about them by hand."""

import json

import cv2
import numpy as np
from PIL import Image

SIZE = (48, 64)  # height, width
CLASSES = ["floor", "disk", "box"]  # floor is stuff, the shapes are things
COLORS = np.array([[90, 90, 90], [220, 40, 40], [40, 60, 220]], np.uint8)


def polygon(shape, center, radius):
    """(P,2) corners, x and y, whole pixels."""
    count, turn = (16, 0) if shape == "disk" else (4, np.pi / 4)
    angles = turn + 2 * np.pi * np.arange(count) / count
    corners = np.stack([np.cos(angles), np.sin(angles)], 1) * radius + center
    return corners.round().astype(int)


def draw(seed):
    """An image (H,W,3) and its objects, a disk and a box apart: (class, mask, polygon)."""
    rng = np.random.default_rng(seed)
    height, width = SIZE
    image = COLORS[0] + rng.integers(0, 20, (*SIZE, 3), np.uint8)
    objects = []
    for index, name in enumerate(CLASSES[1:]):
        left = index * width // 2
        center = (left + rng.integers(12, width // 2 - 12), rng.integers(12, height - 12))
        corners = polygon(name, center, rng.integers(7, 11))
        mask = np.zeros(SIZE, np.uint8)
        cv2.fillPoly(mask, [corners.astype(np.int32)], 1)
        image[mask > 0] = COLORS[index + 1]
        objects.append((index + 1, mask > 0, corners))
    return image, objects


def label_map(objects):
    label = np.zeros(SIZE, np.uint8)
    for index, mask, _ in objects:
        label[mask] = index
    return label


def write_semantic(folder, count=6, seed=0, names=CLASSES):
    """FOLDER/images/*.png and FOLDER/labels/*.png, with FOLDER/classes.txt beside them."""
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    for number in range(count):
        image, objects = draw((seed, number))
        Image.fromarray(image).save(folder / "images" / f"{number}.png")
        Image.fromarray(label_map(objects)).save(folder / "labels" / f"{number}.png")
    if names:
        (folder / "classes.txt").write_text("\n".join(names) + "\n")
    return f"semantic:{folder}/images:{folder}/labels"


def write_coco(folder, count=6, seed=0):
    """FOLDER/images/*.png and FOLDER/shapes.json with polygons."""
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for number in range(count):
        image, objects = draw((seed, number))
        Image.fromarray(image).save(folder / "images" / f"{number}.png")
        images.append(
            {"id": number, "file_name": f"{number}.png", "height": SIZE[0], "width": SIZE[1]}
        )
        for index, mask, corners in objects:
            (x, y), (right, bottom) = corners.min(0).tolist(), corners.max(0).tolist()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": 10 * index,
                    "segmentation": [corners.ravel().tolist()],
                    "bbox": [x, y, right - x, bottom - y],
                    "area": int(mask.sum()),
                    "iscrowd": 0,
                }
            )
    categories = [{"id": 10 * index, "name": CLASSES[index]} for index in (1, 2)]
    write_json(folder / "shapes.json", images, annotations, categories)
    return f"coco:{folder}/shapes.json:{folder}/images"


def write_panoptic(folder, count=6, seed=0):
    """FOLDER/images/*.png, FOLDER/pngs/*.png and FOLDER/shapes.json."""
    for part in ("images", "pngs"):
        (folder / part).mkdir(parents=True)
    images, annotations = [], []
    for number in range(count):
        image, objects = draw((seed, number))
        Image.fromarray(image).save(folder / "images" / f"{number}.png")
        images.append(
            {"id": number, "file_name": f"{number}.png", "height": SIZE[0], "width": SIZE[1]}
        )
        ids = label_map(objects).astype(np.int32) + 300  # floor 300, disk 301, box 302
        rgb = np.stack([ids % 256, ids // 256, 0 * ids], -1).astype(np.uint8)
        Image.fromarray(rgb).save(folder / "pngs" / f"{number}.png")
        segments = [
            {
                "id": 300 + index,
                "category_id": index + 1,
                "area": int((ids == 300 + index).sum()),
                "iscrowd": 0,
            }
            for index in range(3)
        ]
        annotations.append(
            {"image_id": number, "file_name": f"{number}.png", "segments_info": segments}
        )
    categories = [
        {"id": index + 1, "name": name, "isthing": int(index > 0)}
        for index, name in enumerate(CLASSES)
    ]
    write_json(folder / "shapes.json", images, annotations, categories)
    return f"panoptic:{folder}/shapes.json:{folder}/images:{folder}/pngs"


def write_json(path, images, annotations, categories):
    content = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(content))
