"""Drawn streets in the layout of COCO 2017 and of COCO-Stuff-10k.

As in COCO, an outline has no holes where a nearer thing hides a part, crowds are run lengths,
traffic lights are things, and a few pictures (of clouds) have no annotations.
"""

import io
import json
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pycocotools.mask
import scipy.io
from panopticapi.utils import IdGenerator, id2rgb

from mask2former.data import annotation_masks
from mask2former.data.datasets import coco, coco_stuff_10k
from mask2former.data.mini.labelled import LabelledScene, Segment
from mask2former.data.mini.maker import MiniSpec, make_mini, save_picture
from mask2former.data.mini.relabel import Relabelled, relabel
from mask2former.data.mini.street.canvas import Camera, Canvas
from mask2former.data.mini.street.surroundings import draw_sky
from mask2former.data.prepare.coco import prepare_coco_semantic, prepare_coco_stuff
from mask2former.data.prepare.coco_stuff_10k import prepare_coco_stuff_10k

DEFAULT_SPEC = MiniSpec(height=256, width=384, num_train=64, num_val=12)
NUM_TEST = 3

# Cityscapes' name -> COCO's category; what is not here belongs to no segment.
_NAMES = {
    **{name: name for name in ("person", "bicycle", "car", "motorcycle", "bus", "train", "truck")},
    "rider": "person",
    "traffic light": "traffic light",
    "road": "road",
    "sidewalk": "pavement-merged",
    "parking": "pavement-merged",
    "building": "building-other-merged",
    "wall": "wall-other-merged",
    "fence": "fence-merged",
    "vegetation": "tree-merged",
    "terrain": "grass-merged",
    "sky": "sky-other-merged",
}
_IDS = {row["name"]: row["id"] for row in coco.CLASSES}
CATEGORIES = {name: _IDS[theirs] for name, theirs in _NAMES.items()}
MIN_AREA = 12  # pixels; nobody would outline what is smaller
CLOUDS_EVERY, CLOUDS_AT = 16, 3  # which pictures are of clouds

# The first bytes of a MATLAB file: a comment, in which scipy puts the time of writing.
MATLAB_COMMENT = b"MATLAB 5.0 MAT-file, mini COCO-Stuff-10k".ljust(116)

_STUFF_10K_IDS = {row["name"]: row["id"] for row in coco_stuff_10k.CLASSES}
# COCO's category -> COCO-Stuff's, in which nothing is merged yet
_STUFF_10K_CATEGORIES = {
    _IDS[name]: _STUFF_10K_IDS[name.removesuffix("-merged")] for name in _NAMES.values()
}
_COLORS = {row["id"]: {"isthing": row["is_thing"], "color": row["color"]} for row in coco.CLASSES}
_SPLITS = ("train", "val", "test")  # of a picture's id, the last digit

Entries = dict[str, dict[str, list[dict]]]  # split -> list of a JSON -> its content


def make_mini_coco(
    root: str | Path,
    spec: MiniSpec = DEFAULT_SPEC,
    show_progress: bool = True,
    num_test: int = NUM_TEST,
) -> None:
    """Draw ROOT/coco with all that the catalog names of COCO and prepare it, or make nothing.

    The pictures for training also make COCO-Stuff-10k's list for training, the others for testing.

    Args:
        num_test: pictures of a split for testing.

    Raises:
        FileExistsError: ROOT/coco is there already.
    """
    entries: Entries = {split: defaultdict(list) for split in _SPLITS}
    make_mini(
        Path(root) / "coco",
        spec,
        partial(_write_picture, entries=entries, seed=spec.seed),
        partial(_finish, entries=entries),
        show_progress,
        num_test=num_test,
    )


def _write_picture(
    directory: Path,
    split: str,
    number: int,
    scene: LabelledScene,
    entries: Entries,
    seed: int,
) -> None:
    if split != "test" and number % CLOUDS_EVERY == CLOUDS_AT:
        scene = _draw_clouds(*scene.segment_map.shape, (seed, _SPLITS.index(split), number))
    of_split = entries[split]
    image = _save_image(directory, split, number, scene)
    of_split["images"].append(image)
    if split == "test":
        return
    objects = list(_find_objects(scene))
    for thing in objects:
        if thing.label in coco.THING_IDS:
            identity = {"id": len(of_split["instances"]) + 1, "image_id": image["id"]}
            of_split["instances"].append({**identity, **_annotate(thing)})
    name = image["file_name"].replace(".jpg", ".png")
    segments = _save_segments(directory / f"panoptic_{split}2017" / name, scene, objects)
    of_split["panoptic"].append(
        {"image_id": image["id"], "file_name": name, "segments_info": segments}
    )
    _save_stuff_10k(directory / "coco_stuff_10k", split, image["id"], scene, objects)


def _finish(directory: Path, entries: Entries) -> None:
    """Write the JSONs and prepare all."""
    things = [{"id": row["id"], "name": row["name"]} for row in coco.THINGS]
    both = [
        {"id": row["id"], "name": row["name"], "isthing": int(row["is_thing"])}
        for row in coco.CLASSES
    ]
    contents = {}
    for split in ("train", "val"):
        lists = entries[split]
        images = {"images": lists["images"]}
        instances = {"categories": things, "annotations": lists["instances"]}
        contents[f"instances_{split}2017"] = {**images, **instances}
        contents[f"panoptic_{split}2017"] = {
            **images,
            "categories": both,
            "annotations": lists["panoptic"],
        }
    tests = {"images": entries["test"]["images"], "categories": things}
    contents |= {f"image_info_{name}2017": tests for name in ("test", "test-dev")}
    (directory / "annotations").mkdir()
    for name, content in contents.items():
        text = json.dumps({"info": {"description": "drawn streets"}, **content})
        (directory / "annotations" / f"{name}.json").write_text(text, encoding="utf-8")
    prepare_coco_semantic(directory, show_progress=False)
    prepare_coco_stuff(directory, show_progress=False)
    prepare_coco_stuff_10k(directory / "coco_stuff_10k", show_progress=False)


def _draw_clouds(height: int, width: int, seed: tuple[int, ...]) -> LabelledScene:
    canvas = Canvas(height, width, np.random.default_rng(seed))
    draw_sky(canvas, Camera(focal=width, centre_x=width / 2, horizon_y=height, height=2))
    image = canvas.finish(gain=(1, 1, 1), noise=3)
    sky = Segment("sky", is_thing=False, is_crowd=False)
    return LabelledScene(image, np.zeros((height, width), np.int32), [sky])


def _find_objects(scene: LabelledScene) -> Iterator[Relabelled]:
    """What COCO would annotate: things and crowds in their order, then stuff, a class a segment."""
    stuff: dict[int, np.ndarray] = {}
    for found in relabel(scene, CATEGORIES, coco.THING_IDS):
        if found.label not in coco.THING_IDS:
            stuff[found.label] = stuff.get(found.label, False) | found.mask
        elif found.mask.sum() >= MIN_AREA:
            yield found
    for category, mask in stuff.items():
        yield Relabelled(category, mask, is_crowd=False)


def _save_image(directory: Path, split: str, number: int, scene: LabelledScene) -> dict:
    """Writes the picture; what the JSONs say about it."""
    image_id = 10 * number + _SPLITS.index(split)  # with gaps, as in COCO
    name = f"{image_id:012d}.jpg"
    save_picture(scene.image, directory / f"{split}2017" / name)
    height, width = scene.segment_map.shape
    return {"id": image_id, "file_name": name, "height": height, "width": width}


def _annotate(thing: Relabelled) -> dict:
    """One annotation of the instance JSON; its area and box are those of its outline."""
    height, width = thing.mask.shape
    if thing.is_crowd:
        segmentation = {"size": [height, width], "counts": _run_lengths(thing.mask)}
    else:
        segmentation = _outline(thing.mask)
    rle = pycocotools.mask.frPyObjects(segmentation, height, width)
    if not thing.is_crowd:
        rle = pycocotools.mask.merge(rle)
    return {
        "category_id": thing.label,
        "iscrowd": int(thing.is_crowd),
        "segmentation": segmentation,
        "area": float(pycocotools.mask.area(rle)),
        "bbox": pycocotools.mask.toBbox(rle).tolist(),
    }


def _outline(mask: np.ndarray) -> list[list[float]]:
    """Polygons [x0, y0, x1, y1, ...], one a piece, without holes; in quarters of a pixel."""
    doubled = mask.astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)  # so that lines have width
    contours, _ = cv2.findContours(doubled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [((contour.ravel() + 0.5) / 2).tolist() for contour in contours]


def _run_lengths(mask: np.ndarray) -> list[int]:
    """Lengths of the runs of zeros and ones by turns, down the columns."""
    values = np.concatenate([[False], mask.ravel(order="F")])
    ends = np.flatnonzero(values[1:] != values[:-1])
    return np.diff([0, *ends.tolist(), mask.size]).tolist()


def _save_segments(path: Path, scene: LabelledScene, objects: list[Relabelled]) -> list[dict]:
    """Writes the panoptic PNG; its segments_info."""
    segment_map = np.zeros(scene.segment_map.shape, np.int64)
    new_ids = IdGenerator(_COLORS)
    segments = []
    for category, mask, is_crowd in objects:
        segment_id = new_ids.get_id(category)
        segment_map[mask] = segment_id
        segments.append(
            {
                "id": segment_id,
                "category_id": category,
                "iscrowd": int(is_crowd),
                "area": int(mask.sum()),
                "bbox": annotation_masks.box(mask),
            }
        )
    save_picture(id2rgb(segment_map), path)
    return segments


def _save_stuff_10k(
    root: Path, split: str, image_id: int, scene: LabelledScene, objects: list[Relabelled]
) -> None:
    """Writes the picture, its MATLAB file as in version 1.1, and its name into the lists."""
    labels = np.zeros(scene.segment_map.shape, np.uint8)  # 0: unlabelled
    for category, mask, _ in objects:
        labels[mask] = _STUFF_10K_CATEGORIES[category]
    name = f"COCO_train2014_{image_id:012d}"
    save_picture(scene.image, root / "images" / f"{name}.jpg")
    for folder in ("annotations", "imageLists"):
        (root / folder).mkdir(exist_ok=True)
    content = io.BytesIO()
    scipy.io.savemat(content, {"S": labels}, do_compression=True)
    matlab = MATLAB_COMMENT + content.getvalue()[len(MATLAB_COMMENT) :]
    (root / "annotations" / f"{name}.mat").write_bytes(matlab)
    for listed in ("train" if split == "train" else "test", "all"):
        with (root / "imageLists" / f"{listed}.txt").open("a", encoding="utf-8") as file:
            file.write(f"{name}\n")
