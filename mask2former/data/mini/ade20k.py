"""Small drawn streets in the layout of ADE20K's downloads, prepared: 150 classes, and 847."""

from pathlib import Path

import numpy as np

from mask2former.data.datasets import ade20k, ade20k_full
from mask2former.data.mini.labelled import LabelledScene
from mask2former.data.mini.maker import DEFAULT_SPEC, MiniSpec, make_mini, save_picture
from mask2former.data.mini.relabel import relabel
from mask2former.data.prepare.ade20k import (
    prepare_ade20k_instances,
    prepare_ade20k_panoptic,
    prepare_ade20k_semantic,
)
from mask2former.data.prepare.ade20k_full import prepare_ade20k_full

# Cityscapes' name -> its index among the 150 classes, and among the 847. Others have no label.
CLASS_INDICES = {
    "road": (6, 4),
    "sidewalk": (11, 8),
    "parking": (52, 41),  # path
    "building": (1, 1),
    "wall": (0, 0),
    "fence": (32, 30),
    "pole": (93, 95),
    "traffic light": (136, 115),
    "traffic sign": (43, 39),  # signboard
    "vegetation": (4, 3),  # tree
    "terrain": (9, 12),  # grass
    "sky": (2, 2),
    "person": (12, 11),
    "rider": (12, 11),
    "car": (20, 14),
    "truck": (83, 93),
    "bus": (80, 80),
    "bicycle": (127, 108),
}

_MAX_INSTANCES = 255  # their numbers have 8 bit


def make_mini_ade20k(
    root: str | Path, spec: MiniSpec = DEFAULT_SPEC, show_progress: bool = True
) -> None:
    """Draw and prepare ROOT/ADEChallengeData2016.

    Raises:
        FileExistsError: it is there already.
    """

    def finish(directory: Path) -> None:
        for prepare in (prepare_ade20k_semantic, prepare_ade20k_instances, prepare_ade20k_panoptic):
            prepare(directory, show_progress=False)

    make_mini(Path(root) / ade20k.DIRECTORY, spec, _write, finish, show_progress)


def make_mini_ade20k_full(
    root: str | Path, spec: MiniSpec = DEFAULT_SPEC, show_progress: bool = True
) -> None:
    """Draw and prepare ROOT/ADE20K_2021_17_01.

    Raises:
        FileExistsError: it is there already.
    """

    def finish(directory: Path) -> None:
        prepare_ade20k_full(directory, show_progress=False)

    make_mini(Path(root) / ade20k_full.DIRECTORY, spec, _write_full, finish, show_progress)


def _write(root: Path, split: str, number: int, scene: LabelledScene) -> None:
    """images/SPLIT/*.jpg, annotations/SPLIT/*.png and annotations_instance/SPLIT/*.png"""
    categories = {row["id"]: number for number, row in enumerate(ade20k.THINGS, start=1)}
    indices = {name: index for name, (index, _) in CLASS_INDICES.items()}
    labels = np.zeros(scene.segment_map.shape, np.uint8)
    instances = np.zeros((*labels.shape, 3), np.uint8)
    count = 0
    for segment in relabel(scene, indices, categories):
        labels[segment.mask] = segment.label + 1
        if segment.label in categories and not segment.is_crowd and count < _MAX_INSTANCES:
            count += 1
            instances[segment.mask] = (categories[segment.label], count, 0)
    for kind, suffix, pixels in (
        ("images", "jpg", scene.image),
        ("annotations", "png", labels),
        ("annotations_instance", "png", instances),
    ):
        name = f"ADE_{split}_{number:08d}.{suffix}"
        save_picture(pixels, root / kind / ade20k.SPLITS[split] / name)


def _write_full(root: Path, split: str, number: int, scene: LabelledScene) -> None:
    """images/ADE/SPLIT/urban/street/*.jpg and *_seg.png: red and green a class, blue a segment"""
    ids = {name: ade20k_full.CLASSES[index]["id"] for name, (_, index) in CLASS_INDICES.items()}
    colors = np.zeros((*scene.segment_map.shape, 3), np.uint8)
    for count, segment in enumerate(relabel(scene, ids)):
        colors[segment.mask] = (segment.label // 256 * 10, segment.label % 256, count % 255 + 1)
    directory = root / "images" / "ADE" / ade20k.SPLITS[split] / "urban" / "street"
    save_picture(scene.image, directory / f"ADE_{split}_{number:08d}.jpg")
    save_picture(colors, directory / f"ADE_{split}_{number:08d}_seg.png")
