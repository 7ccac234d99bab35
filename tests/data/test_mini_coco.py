"""The drawn COCO: its files say the same in each form, as in the real one, and are made whole."""

import json
from pathlib import Path

import numpy as np
import pytest
from panopticapi.utils import rgb2id
from PIL import Image
from pycocotools.coco import COCO

from mask2former.data.datasets.coco import CLASSES
from mask2former.data.mini import coco as mini_coco
from mask2former.data.mini.coco import DEFAULT_SPEC, make_mini_coco
from mask2former.data.mini.labelled import draw_labelled
from mask2former.data.mini.maker import MiniSpec

TINY = MiniSpec(height=32, width=48, num_train=1, num_val=1)
NAMES = {row["id"]: row["name"] for row in CLASSES}


def _files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def _pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def _read(root: Path, name: str) -> dict:
    return json.loads((root / f"coco/annotations/{name}.json").read_text())


def test_same_seed_same_files_another_seed_other_pictures(tmp_path):
    for name, spec in (("a", TINY), ("b", TINY), ("c", MiniSpec(32, 48, 1, 1, seed=1))):
        make_mini_coco(tmp_path / name, spec, show_progress=False)
    a, b, c = (_files(tmp_path / name / "coco") for name in "abc")
    assert a == b
    assert a.keys() == c.keys() and all(a[name] != c[name] for name in a if name.endswith(".jpg"))
    pictures = [content for name, content in a.items() if "2017/" in name and ".jpg" in name]
    assert len(pictures) == len(set(pictures)) == 1 + 1 + mini_coco.NUM_TEST


def test_all_pictures_are_listed_under_ids_of_their_own(mini_coco_root):
    ids = []
    for split, names in {
        "train": ("instances_train2017", "panoptic_train2017"),
        "val": ("instances_val2017", "panoptic_val2017"),
        "test": ("image_info_test2017", "image_info_test-dev2017"),
    }.items():
        first, second = (_read(mini_coco_root, name)["images"] for name in names)
        assert first == second
        files = {path.name for path in (mini_coco_root / f"coco/{split}2017").iterdir()}
        assert {image["file_name"] for image in first} == files
        assert all(f"{image['id']:012d}.jpg" == image["file_name"] for image in first)
        ids += [image["id"] for image in first]
    assert len(set(ids)) == len(ids) == 5 + 3 + mini_coco.NUM_TEST


def _annotations_beside_segments(root: Path, split: str):
    """Of each picture: annotations with their masks by pycocotools, things with those of the PNG.

    They are in the same order.
    """
    api = COCO(str(root / f"coco/annotations/instances_{split}2017.json"))
    for entry in _read(root, f"panoptic_{split}2017")["annotations"]:
        ids = rgb2id(_pixels(root / f"coco/panoptic_{split}2017" / entry["file_name"]))
        annotations = api.loadAnns(api.getAnnIds(imgIds=[entry["image_id"]]))
        things = [s for s in entry["segments_info"] if s["category_id"] <= 90]
        assert len(annotations) == len(things)
        for annotation, thing in zip(annotations, things):
            yield annotation, api.annToMask(annotation).astype(bool), thing, ids == thing["id"]


def test_outlines_enclose_the_segments(mini_coco_root):
    crowds = holes = count = 0
    for split in ("train", "val"):
        for annotation, drawn, segment, mask in _annotations_beside_segments(mini_coco_root, split):
            assert annotation["category_id"] == segment["category_id"]
            assert annotation["iscrowd"] == segment["iscrowd"]
            assert not (mask & ~drawn).any()
            if annotation["iscrowd"]:
                crowds += 1
                assert isinstance(annotation["segmentation"]["counts"], list)
                assert (drawn == mask).all()
            else:
                assert all(len(p) >= 6 for p in annotation["segmentation"])
                holes += (drawn != mask).any()
            count += 1
    assert count > 60 and crowds > 0 and 0 < holes < 0.2 * count


def test_areas_and_boxes(mini_coco_root):
    for annotation, drawn, segment, mask in _annotations_beside_segments(mini_coco_root, "train"):
        for entry, pixels in ((annotation, drawn), (segment, mask)):
            rows, columns = np.nonzero(pixels)
            left, top = columns.min(), rows.min()
            assert entry["area"] == pixels.sum() >= mini_coco.MIN_AREA
            width, height = columns.max() + 1 - left, rows.max() + 1 - top
            assert entry["bbox"] == [left, top, width, height]


def test_a_picture_without_annotations_and_its_sky(mini_coco_root):
    for split, image_id in (("train", 30), ("val", 31)):
        annotations = _read(mini_coco_root, f"instances_{split}2017")["annotations"]
        assert image_id not in {a["image_id"] for a in annotations}
        assert len({a["image_id"] for a in annotations}) == {"train": 4, "val": 2}[split]
        (entry,) = (
            e
            for e in _read(mini_coco_root, f"panoptic_{split}2017")["annotations"]
            if e["image_id"] == image_id
        )
        assert [NAMES[s["category_id"]] for s in entry["segments_info"]] == ["sky-other-merged"]
        assert entry["segments_info"][0]["area"] == 96 * 144
        picture = _pixels(mini_coco_root / f"coco/{split}2017/{image_id:012d}.jpg")
        assert picture[..., 2].mean() > picture[..., 0].mean() + 10  # blue


def test_ids_are_as_in_coco(mini_coco_root):
    content = _read(mini_coco_root, "panoptic_train2017")
    assert len(content["categories"]) == 133
    assert sum(c["isthing"] for c in content["categories"]) == 80
    segments = [s for entry in content["annotations"] for s in entry["segments_info"]]
    assert max(s["id"] for s in segments) > 65535
    for entry in content["annotations"]:
        ids = [s["id"] for s in entry["segments_info"]]
        assert len(set(ids)) == len(ids) and 0 not in ids
        png = rgb2id(_pixels(mini_coco_root / "coco/panoptic_train2017" / entry["file_name"]))
        assert set(np.unique(png)) - {0} == set(ids)
    annotations = _read(mini_coco_root, "instances_train2017")["annotations"]
    assert [a["id"] for a in annotations] == list(range(1, len(annotations) + 1))


def test_default_pictures_show_each_class_several_times():
    """The first ten of the default training set, at half their size."""
    pictures: dict[str, int] = {}
    for index in range(10):
        height, width = DEFAULT_SPEC.height // 2, DEFAULT_SPEC.width // 2
        scene = draw_labelled(height, width, (DEFAULT_SPEC.seed, 0, index))
        for category in {found.label for found in mini_coco._find_objects(scene)}:
            pictures[NAMES[category]] = pictures.get(NAMES[category], 0) + 1
    often = {name for name, count in pictures.items() if count >= 3}
    assert {"person", "bicycle", "car", "bus", "truck", "traffic light"} <= often
    assert len(often) >= 13


def test_an_existing_directory_is_not_touched(tmp_path):
    (tmp_path / "coco").mkdir()
    with pytest.raises(FileExistsError, match=r"coco: is there already; delete it"):
        make_mini_coco(tmp_path, TINY)
    assert list((tmp_path / "coco").iterdir()) == []


@pytest.mark.parametrize("step", ["_save_stuff_10k", "prepare_coco_stuff_10k"])
def test_half_of_it_never_gets_the_name(tmp_path, monkeypatch, step):
    def fails(*args, **kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr(mini_coco, step, fails)
    with pytest.raises(OSError, match="no space left"):
        make_mini_coco(tmp_path, TINY, show_progress=False)
    assert [path.name for path in tmp_path.iterdir()] == [".coco.lock"]
    monkeypatch.undo()
    make_mini_coco(tmp_path, TINY, show_progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".coco.lock", "coco"]
