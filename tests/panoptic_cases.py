"""Drawn panoptic ground truth and predictions, in files."""

import json

import numpy as np
from panopticapi.utils import id2rgb
from PIL import Image

# Ids with gaps; 5 is never drawn.
CATEGORIES = [
    {"id": i, "name": f"class {i}", "isthing": int(i in (2, 5, 9, 200))}
    for i in (1, 2, 5, 7, 9, 30, 200)
]
DRAWN = [c["id"] for c in CATEGORIES if c["id"] != 5]


def draw(generator, size, num_blocks, start):
    """Rectangles over each other: ids (H,W), of which 0 is void, and their segments."""
    ids = np.zeros(size, np.int64)
    segments = {}
    for number in range(num_blocks):
        y, x = (int(generator.integers(0, extent - 4)) for extent in size)
        height, width = (int(n) for n in generator.integers(4, 24, 2))
        segment = start + 977 * number
        ids[y : y + height, x : x + width] = segment
        segments[segment] = {"id": segment, "category_id": int(generator.choice(DRAWN))}
    present = set(np.unique(ids).tolist())
    return ids, [s for i, s in segments.items() if i in present]


def disturb(generator, ids, segments):
    """A prediction like the ground truth: moved, some segments lost, others of a wrong category."""
    moved = np.roll(ids, generator.integers(-2, 3, 2), (0, 1))
    kept = [s for s in segments if generator.random() < 0.85]
    new_ids = np.zeros_like(ids)
    result = []
    for number, segment in enumerate(kept):
        mask = moved == segment["id"]
        if not mask.any():
            continue
        category = segment["category_id"]
        if generator.random() < 0.2:
            category = int(generator.choice(DRAWN))
        new_ids[mask] = 70000 + number
        result.append({"id": 70000 + number, "category_id": category})
    return new_ids, result


def draw_pairs(seed, num_images=4, size=(40, 56), crowds=True):
    """[(true ids, true segments, predicted ids, predicted segments)] of some images."""
    generator = np.random.default_rng(seed)
    pairs = []
    for _ in range(num_images):
        ids, segments = draw(generator, size, 12, start=60000)  # below and above 65535
        for segment in segments:
            segment["iscrowd"] = int(crowds and generator.random() < 0.2)
            segment["area"] = int((ids == segment["id"]).sum())
        pairs.append((ids, segments, *disturb(generator, ids, segments)))
    return pairs


def write(folder, pairs, categories=CATEGORIES):
    """The files that `pq_compute` reads; gives the names of the two JSONs."""
    jsons = []
    for kind, at in (("gt", 0), ("predicted", 2)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        annotations = []
        for number, pair in enumerate(pairs):
            name = f"{number}.png"
            Image.fromarray(id2rgb(pair[at])).save(folder / kind / name)
            annotations.append(
                {"image_id": number, "file_name": name, "segments_info": pair[at + 1]}
            )
        path = folder / f"{kind}.json"
        path.write_text(json.dumps({"annotations": annotations, "categories": categories}))
        jsons.append(str(path))
    return jsons
