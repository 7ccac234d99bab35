"""Preparing ADE20K: hand-made pictures with known answers, kills, and what is broken."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pycocotools.mask
import pytest
from killed_runs import run_until_killed
from PIL import Image

from mask2former.data.datasets.ade20k import CLASSES
from mask2former.data.prepare import ade20k as ade20k_prepare
from mask2former.data.prepare.ade20k import (
    prepare_ade20k_instances,
    prepare_ade20k_panoptic,
    prepare_ade20k_semantic,
)

WALL, SKY, TREE, PERSON, CAR = 1, 3, 5, 13, 21  # of annotations/: class + 1
PERSON_INSTANCE, CAR_INSTANCE = 4, 9  # of annotations_instance/, red
DIRECTORIES = {"train": "training", "val": "validation"}
ALL = (prepare_ade20k_semantic, prepare_ade20k_instances, prepare_ade20k_panoptic)


def _write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def _write_picture(root: Path, split: str, number: int, labels: list, instances: list) -> None:
    """`instances`: of each row and column (class, number)."""
    stem = f"{DIRECTORIES[split]}/ADE_{split}_{number:08d}"
    labels = np.array(labels, np.uint8)
    instances = np.array(instances, np.uint8)
    blue = np.zeros((*labels.shape, 1), np.uint8)
    _write(root / "images" / f"{stem}.jpg", np.zeros((*labels.shape, 3), np.uint8))
    _write(root / "annotations" / f"{stem}.png", labels)
    _write(root / "annotations_instance" / f"{stem}.png", np.concatenate([instances, blue], 2))


@pytest.fixture
def root(tmp_path):
    """Two pictures for training, one for validation.

    The first: walls around two people who touch, a car that hides a tree wholly and some wall, a
    person that is no instance, and a corner without any class.
    """
    root = tmp_path / "ADEChallengeData2016"
    a, b, c = (PERSON_INSTANCE, 7), (PERSON_INSTANCE, 2), (CAR_INSTANCE, 200)
    o = (0, 0)
    labels = [
        [WALL, WALL, WALL, WALL, WALL, 0],
        [WALL, PERSON, PERSON, TREE, WALL, WALL],
        [WALL, PERSON, PERSON, CAR, CAR, PERSON],
    ]
    instances = [
        [o, o, o, o, o, o],
        [o, a, b, c, c, o],
        [o, a, b, c, c, o],
    ]
    _write_picture(root, "train", 1, labels, instances)
    _write_picture(root, "train", 2, [[SKY, 150]], [[o, (100, 1)]])
    _write_picture(root, "val", 1, [[0, 0]], [[o, o]])
    return root


def _json(path: Path) -> dict:
    return json.loads(path.read_text())


def _pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def _outputs(root: Path) -> dict[str, tuple[int, bytes]]:
    """Each output's time of writing and content."""
    downloads = ("images", "annotations", "annotations_instance")
    return {
        str(path.relative_to(root)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.relative_to(root).parts[0] not in downloads
    }


def test_label_maps_count_from_zero(root):
    prepare_ade20k_semantic(root, show_progress=False)
    path = root / "annotations_detectron2/training/ADE_train_00000001.png"
    assert Image.open(path).mode == "L"
    assert _pixels(path).tolist() == [
        [0, 0, 0, 0, 0, 255],
        [0, 12, 12, 4, 0, 0],
        [0, 12, 12, 20, 20, 12],
    ]
    assert _pixels(path.with_name("ADE_train_00000002.png")).tolist() == [[2, 149]]
    validation = root / "annotations_detectron2/validation/ADE_val_00000001.png"
    assert _pixels(validation).tolist() == [[255, 255]]


def test_instances_are_in_cocos_format(root):
    prepare_ade20k_instances(root, show_progress=False)
    content = _json(root / "ade20k_instance_train.json")
    assert content["images"] == [
        {
            "id": "ADE_train_00000001",
            "file_name": "ADE_train_00000001.jpg",
            "width": 6,
            "height": 3,
        },
        {
            "id": "ADE_train_00000002",
            "file_name": "ADE_train_00000002.jpg",
            "width": 2,
            "height": 1,
        },
    ]
    facts = [
        (a["id"], a["image_id"][-1], a["category_id"], a["bbox"], a["area"], a["iscrowd"])
        for a in content["annotations"]
    ]
    assert facts == [  # by number: 2, 7, 200
        (1, "1", 12, [2, 1, 1, 2], 2, 0),
        (2, "1", 12, [1, 1, 1, 2], 2, 0),
        (3, "1", 20, [3, 1, 2, 2], 4, 0),
        (4, "2", 149, [1, 0, 1, 1], 1, 0),
    ]
    mask = pycocotools.mask.decode(content["annotations"][2]["segmentation"])
    assert mask.tolist() == [[0, 0, 0, 0, 0, 0], [0, 0, 0, 1, 1, 0], [0, 0, 0, 1, 1, 0]]
    assert len(content["categories"]) == 100
    assert content["categories"][1] == {"id": 8, "name": "windowpane"}
    empty = _json(root / "ade20k_instance_val.json")
    assert empty["annotations"] == [] and len(empty["images"]) == 1


def test_panoptic_segments_hide_each_other(root):
    prepare_ade20k_panoptic(root, show_progress=False)
    content = _json(root / "ade20k_panoptic_train.json")
    annotation = content["annotations"][0]
    assert annotation["image_id"] == "ADE_train_00000001"
    assert annotation["file_name"] == "ADE_train_00000001.png"
    facts = [
        (s["category_id"], s["bbox"], s["area"], s["iscrowd"]) for s in annotation["segments_info"]
    ]
    assert facts == [
        (0, [0, 0, 6, 3], 9, 0),  # as large as before the car hid some of it
        (4, [3, 1, 1, 1], 1, 0),  # hidden wholly, and listed all the same
        (12, [2, 1, 1, 2], 2, 0),
        (12, [1, 1, 1, 2], 2, 0),
        (20, [3, 1, 2, 2], 4, 0),
    ]
    wall, tree, right, left, car = (segment["id"] for segment in annotation["segments_info"])
    assert len({0, wall, tree, right, left, car}) == 6
    assert wall == 120 + 256 * 120 + 256**2 * 120  # the colour of walls
    assert right == 150 + 256 * 5 + 256**2 * 61 and left > 255
    png = _pixels(root / "ade20k_panoptic_train/ADE_train_00000001.png").astype(int)
    assert (png @ [1, 256, 256**2]).tolist() == [
        [wall, wall, wall, wall, wall, 0],
        [wall, left, right, car, car, wall],
        [wall, left, right, car, car, 0],  # a person of annotations/ alone is no segment
    ]
    assert [c["id"] for c in content["categories"]] == list(range(150))
    assert sum(c["isthing"] for c in content["categories"]) == 100


def test_255_things_of_a_class_and_all_stuff_have_ids_of_their_own(root):
    """Skyscrapers and roads too, whose colours in the catalog are the same."""
    stuff = [row["id"] + 1 for row in CLASSES if not row["is_thing"]]
    labels = [stuff + [CAR] * 255]
    instances = [[(0, 0)] * len(stuff) + [(CAR_INSTANCE, number) for number in range(1, 256)]]
    _write_picture(root, "val", 2, labels, instances)
    prepare_ade20k_panoptic(root, show_progress=False)
    segments = _json(root / "ade20k_panoptic_val.json")["annotations"][1]["segments_info"]
    assert len({segment["id"] for segment in segments} - {0}) == 50 + 255
    png = _pixels(root / "ade20k_panoptic_val/ADE_val_00000002.png").astype(int)
    assert sorted(png[0] @ [1, 256, 256**2]) == sorted(segment["id"] for segment in segments)


@pytest.mark.parametrize("prepare", ALL)
def test_two_workers_make_the_same_files(root, prepare):
    prepare(root, 2, show_progress=False)
    by_two = {name: content for name, (_, content) in _outputs(root).items()}
    for name in by_two:
        (root / name).unlink()
    prepare(root, show_progress=False)
    assert {name: content for name, (_, content) in _outputs(root).items()} == by_two


@pytest.mark.parametrize("prepare", ALL)
def test_a_second_run_writes_nothing(root, prepare):
    prepare(root, show_progress=False)
    before = _outputs(root)
    assert before and not [name for name in before if "/." in f"/{name}"]
    prepare(root, show_progress=False)
    assert _outputs(root) == before


def test_files_cut_off_are_made_again(root):
    for prepare in ALL:
        prepare(root, show_progress=False)
    before = {name: content for name, (_, content) in _outputs(root).items()}
    for name in (
        "annotations_detectron2/training/ADE_train_00000001.png",
        "ade20k_instance_train.json",
        "ade20k_panoptic_train/ADE_train_00000002.png",
        "ade20k_panoptic_val.json",
    ):
        (root / name).write_bytes(before[name][: len(before[name]) // 2])
    for prepare in ALL:
        prepare(root, show_progress=False)
    assert {name: content for name, (_, content) in _outputs(root).items()} == before


def test_more_pictures_than_before_are_added(root):
    prepare_ade20k_panoptic(root, show_progress=False)
    _write_picture(root, "val", 2, [[WALL]], [[(0, 0)]])
    prepare_ade20k_panoptic(root, show_progress=False)
    content = _json(root / "ade20k_panoptic_val.json")
    assert [len(entry["segments_info"]) for entry in content["annotations"]] == [0, 1]


@pytest.mark.parametrize(
    ("prepare", "function", "whole", "in_the_end"),
    [
        (prepare_ade20k_semantic, "write_indices", 1, 3),
        (prepare_ade20k_instances, "instance_entry", 1, 2),
        (prepare_ade20k_panoptic, "panoptic_entry", 2, 5),  # a PNG and its entry
    ],
)
def test_a_killed_run_goes_on_where_it_was(root, prepare, function, whole, in_the_end):
    run_until_killed(lambda: prepare(root, show_progress=False), ade20k_prepare, function, 1)
    before = _outputs(root)
    assert len(before) == whole
    prepare(root, show_progress=False)
    after = _outputs(root)
    assert {name: after[name] for name in before if "/." not in f"/{name}"} == {
        name: content for name, content in before.items() if "/." not in f"/{name}"
    }
    assert len(after) == in_the_end


def test_an_entry_of_a_killed_run_is_not_made_again(root, monkeypatch):
    calls = []

    def step(real: Callable, picture: Path, **kwargs: Path) -> dict:
        calls.append(picture.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(picture, **kwargs)

    monkeypatch.setattr(
        ade20k_prepare, "instance_entry", partial(step, ade20k_prepare.instance_entry)
    )
    with pytest.raises(KeyboardInterrupt):
        prepare_ade20k_instances(root, show_progress=False)
    prepare_ade20k_instances(root, show_progress=False)
    first, second, validation = (
        "ADE_train_00000001.jpg",
        "ADE_train_00000002.jpg",
        "ADE_val_00000001.jpg",
    )
    assert calls == [first, second, second, validation]


def test_one_split_is_enough(root):
    for kind in ("images", "annotations"):
        (root / kind / "training").rename(root / f"{kind}_of_training")
    for prepare in ALL:
        prepare(root, show_progress=False)
    assert not (root / "ade20k_instance_train.json").exists()
    assert (root / "ade20k_panoptic_val.json").exists()


@pytest.mark.parametrize("prepare", ALL)
def test_nothing_unpacked(tmp_path, prepare):
    with pytest.raises(FileNotFoundError, match=r"no training or validation in it; unpack ADECh"):
        prepare(tmp_path)
    for kind in ("images", "annotations"):
        (tmp_path / kind / "training").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"training: no \*\.\w+ in it; unpack ADEChalleng"):
        prepare(tmp_path)


def test_instances_are_a_download_of_their_own(root):
    path = root / "annotations_instance/training/ADE_train_00000002.png"
    path.unlink()
    for prepare in (prepare_ade20k_instances, prepare_ade20k_panoptic):
        with pytest.raises(FileNotFoundError, match=rf"{path}: no such file; unpack annotations_i"):
            prepare(root, show_progress=False)


@pytest.mark.parametrize("num_workers", [1, 2])
@pytest.mark.parametrize(
    ("prepare", "kind"),
    [
        (prepare_ade20k_semantic, "annotations"),
        (prepare_ade20k_panoptic, "annotations"),
        (prepare_ade20k_instances, "annotations_instance"),
        (prepare_ade20k_panoptic, "annotations_instance"),
    ],
)
def test_a_broken_png_is_named(root, prepare, kind, num_workers):
    path = root / kind / "training/ADE_train_00000002.png"
    path.write_bytes(path.read_bytes()[:36])
    with pytest.raises(ValueError, match=rf"^{path}: not a whole picture \(.*\); unpack \S+ again"):
        prepare(root, num_workers, show_progress=False)


@pytest.mark.parametrize(
    ("kind", "pixels", "message"),
    [
        ("annotations", np.full((1, 2), 151, np.uint8), r"up to 151, and label maps have 8 bit"),
        ("annotations", np.zeros((1, 2, 3), np.uint8), r"of shape \(1, 2, 3\) up to 0, and label"),
        ("annotations", np.zeros((1, 2), np.uint16), r"holds uint16 of shape"),
        ("annotations", np.zeros((2, 1), np.uint8), r"2x1 pixels, and .*jpg has 1x2"),
        ("annotations_instance", np.zeros((1, 2), np.uint8), r"8 bit and three channels"),
        ("annotations_instance", np.full((1, 2, 3), 101, np.uint8), r"101 is of the classes \[101"),
        ("annotations_instance", np.array([[[1, 5, 0], [2, 5, 0]]], np.uint8), r"classes \[1, 2\]"),
        ("annotations_instance", np.array([[[0, 5, 0], [0, 5, 0]]], np.uint8), r"classes \[0\]"),
    ],
)
def test_files_of_another_dataset_are_named(root, kind, pixels, message):
    path = root / kind / "training/ADE_train_00000002.png"
    _write(path, pixels)
    with pytest.raises(ValueError, match=message) as error:
        prepare_ade20k_panoptic(root, show_progress=False)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)
    assert not (root / "ade20k_panoptic_train.json").exists()
