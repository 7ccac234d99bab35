"""Mapillary Vistas: a drawn one in the download's layout, and files of another version."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from PIL import Image

from mask2former.data.datasets import register_all
from mask2former.data.datasets.mapillary_vistas import CLASSES
from mask2former.data.mini.maker import MiniSpec
from mask2former.data.mini.mapillary_vistas import make_mini_mapillary_vistas

SPEC = MiniSpec(height=96, width=160, num_train=3, num_val=2, seed=1)
TASKS = ("sem_seg", "panoptic")


@pytest.fixture(scope="module")
def _once(tmp_path_factory):
    root = tmp_path_factory.mktemp("mini")
    make_mini_mapillary_vistas(root, SPEC, show_progress=False)
    return root


@pytest.fixture
def root(_once, default_root):
    """Not to be written to."""
    register_all(str(_once))
    return _once


@pytest.fixture
def validation(_once, default_root, tmp_path):
    """mapillary_vistas/validation of a copy that a test may spoil."""
    shutil.copytree(_once, tmp_path / "own")
    register_all(str(tmp_path / "own"))
    return tmp_path / "own/mapillary_vistas/validation"


def _load_error(task: str) -> str:
    with pytest.raises((FileNotFoundError, ValueError)) as error:
        DatasetCatalog.get(f"mapillary_vistas_{task}_val")
    message = str(error.value)
    assert "\n" not in message
    return message


def test_semantic_labels_are_palette_pictures_of_indices(root):
    seen = set()
    for split, count in (("train", 3), ("val", 2)):
        dicts = DatasetCatalog.get(f"mapillary_vistas_sem_seg_{split}")
        assert len(dicts) == count
        for sample in dicts:
            picture, label = (
                Image.open(sample["file_name"]),
                Image.open(sample["sem_seg_file_name"]),
            )
            assert picture.size == label.size == (160, 96) and label.mode == "P"
            seen |= set(np.unique(np.asarray(label)).tolist())
            palette = np.array(label.getpalette()[: 3 * 66]).reshape(66, 3)
            assert palette.tolist() == [row["color"] for row in CLASSES] + [[0, 0, 0]]
    assert 65 in seen and seen <= set(range(66)) and len(seen) > 8


def test_panoptic_segments_are_those_of_the_pngs(root):
    is_thing = {index: row["is_thing"] for index, row in enumerate(CLASSES)}
    crowds = 0
    for sample in DatasetCatalog.get("mapillary_vistas_panoptic_train"):
        png = np.asarray(Image.open(sample["pan_seg_file_name"])).astype(int)
        ids = png @ [1, 256, 256**2]
        labels = np.asarray(Image.open(sample["sem_seg_file_name"]))
        assert ids.shape == labels.shape == (sample["height"], sample["width"])
        for segment in sample["segments_info"]:
            mask = ids == segment["id"]
            assert segment["id"] > 255 and mask.sum() == segment["area"] > 0
            assert np.unique(labels[mask]).tolist() == [segment["category_id"]]
            assert segment["isthing"] == is_thing[segment["category_id"]]
            rows, columns = np.nonzero(mask)
            x, y, width, height = segment["bbox"]
            assert (x, y) == (columns.min(), rows.min())
            assert (x + width, y + height) == (columns.max() + 1, rows.max() + 1)
            crowds += segment["iscrowd"]
        listed = np.isin(ids, [segment["id"] for segment in sample["segments_info"]])
        assert (listed == (labels != 65)).all() and ((ids == 0) == (labels == 65)).all()


def test_instances_are_16_bit_of_class_and_number(root):
    base = root / "mapillary_vistas/training"
    for path in sorted((base / "instances").iterdir()):
        instances = np.asarray(Image.open(path))
        labels = np.asarray(Image.open(base / "labels" / path.name))
        assert instances.dtype == np.uint16 and (instances // 256 == labels).all()


def test_the_same_spec_gives_the_same_files(root, tmp_path):
    make_mini_mapillary_vistas(tmp_path, SPEC, show_progress=False)
    for path in sorted((root / "mapillary_vistas").rglob("*")):
        if path.is_file():
            assert (tmp_path / path.relative_to(root)).read_bytes() == path.read_bytes()
    with pytest.raises(FileExistsError, match=r"mapillary_vistas: is there already; delete it"):
        make_mini_mapillary_vistas(tmp_path, SPEC, show_progress=False)


def test_the_archive_of_v2_is_known(validation):
    for version in ("v1.2", "v2.0"):
        (validation / version).mkdir()
    for kind in ("labels", "panoptic"):
        (validation / kind).rename(validation / "v1.2" / kind)
    for task in TASKS:
        message = _load_error(task)
        assert message.endswith(f"move {validation}/v1.2/* to {validation}")
    shutil.rmtree(validation / "v1.2")
    for task in TASKS:
        message = _load_error(task)
        assert "v2.0 with its 124 classes; unpack Mapillary Vistas v1.2 so that" in message


def test_a_panoptic_json_of_v2_is_known(validation):
    path = validation / "panoptic/panoptic_2018.json"
    path.rename(path.with_name("panoptic_2020.json"))
    assert "labels of Mapillary Vistas v2.0 with its 124 classes" in _load_error("panoptic")
    content = json.loads(path.with_name("panoptic_2020.json").read_text())
    content["annotations"][0]["segments_info"][0]["category_id"] = 124
    path.with_name("panoptic_2020.json").unlink()
    path.write_text(json.dumps(content))
    assert "category_id=124, which the dataset does not have" in _load_error("panoptic")


def _first_label(validation: Path) -> Path:
    return sorted((validation / "labels").iterdir())[0]


@pytest.mark.parametrize("task", TASKS)
def test_labels_of_another_kind_are_known(validation, task):
    path = _first_label(validation)
    Image.open(path).convert("RGB").save(path)
    assert f"{path}: has 3 channels" in _load_error(task)
    Image.fromarray(np.full((96, 160), 108, np.uint8)).save(path)
    assert f"{path}: holds class 108, and Mapillary Vistas v1.2 has 0 to 65" in _load_error(task)
    path.write_bytes(path.read_bytes()[:40])
    assert f"{path}: not a whole picture" in _load_error(task)


@pytest.mark.parametrize("task", TASKS)
def test_missing_files_are_counted(validation, task):
    path = _first_label(validation)
    path.unlink()
    message = _load_error(task)
    assert message.startswith("1 of 2 ") and path.stem in message
    assert f"; unpack Mapillary Vistas v1.2 so that {validation} holds images/" in message
