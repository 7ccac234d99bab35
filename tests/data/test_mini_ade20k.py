"""The drawn ADE20K: every catalog name loads from it, its files agree, it is whole or not there."""

from pathlib import Path

import numpy as np
import pycocotools.mask
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from mask2former.data.datasets import register_all
from mask2former.data.mini import ade20k as mini_ade20k
from mask2former.data.mini.ade20k import make_mini_ade20k, make_mini_ade20k_full
from mask2former.data.mini.maker import MiniSpec

SPEC = MiniSpec(height=96, width=160, num_train=3, num_val=2, seed=1)
COUNTS = {"train": 3, "val": 2}


@pytest.fixture(scope="module")
def _once(tmp_path_factory):
    root = tmp_path_factory.mktemp("mini")
    make_mini_ade20k(root, SPEC, show_progress=False)
    make_mini_ade20k_full(root, SPEC, show_progress=False)
    return root


@pytest.fixture
def root(_once, default_root):
    register_all(str(_once))
    return _once


def _pixels(path: str) -> np.ndarray:
    return np.asarray(Image.open(path))


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("name", ["ade20k_sem_seg", "ade20k_full_sem_seg"])
def test_semantic_files(root, name, split):
    metadata = MetadataCatalog.get(f"{name}_{split}")
    dicts = DatasetCatalog.get(f"{name}_{split}")
    assert len(dicts) == COUNTS[split]
    seen = set()
    for sample in dicts:
        labels = _pixels(sample["sem_seg_file_name"])
        assert labels.dtype == (np.uint16 if "full" in name else np.uint8)
        assert _pixels(sample["file_name"]).shape == (96, 160, 3) and labels.shape == (96, 160)
        seen |= set(np.unique(labels).tolist())
    assert metadata.ignore_label in seen
    classes = {metadata.stuff_classes[label] for label in seen - {metadata.ignore_label}}
    assert {"road, route", "sky", "tree", "wall"} <= classes and len(classes) > 8


@pytest.mark.parametrize("split", ["train", "val"])
def test_instances_and_panoptic_segments_are_the_same_things(root, split):
    instances = DatasetCatalog.get(f"ade20k_instance_{split}")
    panoptic = DatasetCatalog.get(f"ade20k_panoptic_{split}")
    assert len(instances) == len(panoptic) == COUNTS[split]
    to_semantic = list(MetadataCatalog.get("ade20k_panoptic_val").thing_dataset_id_to_contiguous_id)
    for sample, pan in zip(instances, panoptic):
        assert sample["file_name"] == pan["file_name"] and sample["image_id"] == pan["image_id"]
        assert (sample["height"], sample["width"]) == (pan["height"], pan["width"]) == (96, 160)
        ids = _pixels(pan["pan_seg_file_name"]).astype(int) @ [1, 256, 256**2]
        labels = _pixels(pan["sem_seg_file_name"])
        things = [segment for segment in pan["segments_info"] if segment["isthing"]]
        assert len(things) == len(sample["annotations"]) > 3
        for segment, annotation in zip(things, sample["annotations"]):
            mask = pycocotools.mask.decode(annotation["segmentation"]).astype(bool)
            assert (mask == (ids == segment["id"])).all()
            assert to_semantic[annotation["category_id"]] == segment["category_id"]
            assert annotation["iscrowd"] == segment["iscrowd"] == 0
        for segment in pan["segments_info"]:
            assert np.unique(labels[ids == segment["id"]]).tolist() == [segment["category_id"]]


def test_the_same_spec_gives_the_same_files(root, tmp_path):
    make_mini_ade20k(tmp_path, SPEC, show_progress=False)
    files = [path for path in sorted((root / "ADEChallengeData2016").rglob("*")) if path.is_file()]
    assert len(files) == 5 * 5 + 4
    for path in files:
        assert (tmp_path / path.relative_to(root)).read_bytes() == path.read_bytes()


def test_nothing_is_left_of_a_drawing_that_failed(tmp_path, monkeypatch):
    def fail(directory: Path, show_progress: bool) -> None:
        assert (directory / "images/validation/ADE_val_00000001.jpg").is_file()
        raise KeyboardInterrupt

    monkeypatch.setattr(mini_ade20k, "prepare_ade20k_instances", fail)
    with pytest.raises(KeyboardInterrupt):
        make_mini_ade20k(tmp_path, MiniSpec(32, 32, 1, 1), show_progress=False)
    assert [path.name for path in tmp_path.iterdir()] == [".ADEChallengeData2016.lock"]


def test_what_is_there_is_kept(root):
    for make, name in (
        (make_mini_ade20k, "ADEChallengeData2016"),
        (make_mini_ade20k_full, "ADE20K_2021_17_01"),
    ):
        with pytest.raises(FileExistsError, match=rf"{name}: is there already; delete it, or name"):
            make(root, SPEC, show_progress=False)
