"""COCO and COCO-Stuff-10k in the catalogs: official metadata, dicts that agree with the files."""

import json
import os
from pathlib import Path

import numpy as np
import pycocotools.mask
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from metadata_facts import compact
from panopticapi.utils import rgb2id
from PIL import Image

from mask2former.data.datasets import register_all
from mask2former.data.datasets.coco import CLASSES, THINGS
from mask2former.data.datasets.instance_json import load_instance_json

FACTS = json.loads((Path(__file__).parents[1] / "goldens" / "coco_metadata.json").read_text())
FILES = ("file_name", "pan_seg_file_name", "sem_seg_file_name")
# of the mini COCO: pictures for training and validation (or testing)
COUNTS = {"train": 5, "val": 3, "test": 3, "test-dev": 3}


@pytest.fixture
def coco_root(mini_coco_root, default_root):
    register_all(str(mini_coco_root))
    return mini_coco_root / "coco"


@pytest.mark.parametrize("name", sorted(FACTS))
def test_metadata_is_the_official_one(name, default_root):
    metadata = MetadataCatalog.get(name).as_dict()
    assert metadata.pop("name") == name
    assert {key: compact(value) for key, value in metadata.items()} == FACTS[name]
    for key in ("thing_dataset_id_to_contiguous_id", "stuff_dataset_id_to_contiguous_id"):
        assert all(isinstance(number, int) for number in metadata.get(key, {}))


@pytest.mark.parametrize("name", sorted(FACTS))
def test_each_dataset_lists_files_that_can_be_read(name, coco_root):
    dicts = DatasetCatalog.get(name)
    assert len(dicts) == COUNTS[name.split("_")[2]]
    assert dicts == DatasetCatalog.get(name)
    for sample in dicts:
        sizes = {Image.open(sample[key]).size for key in FILES if key in sample}
        assert sizes == {(144, 96)}
        if "height" in sample:
            assert sizes == {(sample["width"], sample["height"])}
    metadata = MetadataCatalog.get(name)
    if "sem_seg_file_name" in dicts[0]:
        num_classes = len(metadata.stuff_classes)
        found = {i for s in dicts for i in np.unique(_pixels(s["sem_seg_file_name"])).tolist()}
        assert found <= {*range(num_classes), 255} and len(found) > 4


def test_instance_ids_are_contiguous(coco_root):
    names = {row["id"]: row["name"] for row in THINGS}
    raw = json.loads((coco_root / "annotations/instances_train2017.json").read_text())
    expected = {a["id"]: names[a["category_id"]] for a in raw["annotations"]}
    classes = MetadataCatalog.get("coco_2017_train").thing_classes
    loaded = [a for s in DatasetCatalog.get("coco_2017_train") for a in s["annotations"]]
    assert [classes[a["category_id"]] for a in loaded] == list(expected.values())
    assert max(a["category_id"] for a in loaded) > 8 > len({a["category_id"] for a in loaded})


@pytest.mark.parametrize("suffix", ["", "_with_sem_seg"])
def test_panoptic_segments_describe_the_png(coco_root, suffix):
    metadata = MetadataCatalog.get(f"coco_2017_train_panoptic{suffix}")
    for sample in DatasetCatalog.get(f"coco_2017_train_panoptic{suffix}"):
        ids = rgb2id(_pixels(sample["pan_seg_file_name"]))
        for segment in sample["segments_info"]:
            mask = ids == segment["id"]
            assert mask.sum() == segment["area"] > 0
            assert segment["isthing"] == (segment["category_id"] < 80)
            if suffix:
                semantic = _pixels(sample["sem_seg_file_name"])
                assert np.unique(semantic[mask]).tolist() == [segment["category_id"]]
        stuff = [s["category_id"] for s in sample["segments_info"] if not s["isthing"]]
        assert len(set(stuff)) == len(stuff)
        assert {"sky-other-merged"} <= {metadata.stuff_classes[i] for i in stuff}


def test_separated_has_instances_and_stuff_apart(coco_root):
    separated = DatasetCatalog.get("coco_2017_val_panoptic_separated")
    stuff_only = DatasetCatalog.get("coco_2017_val_panoptic_stuffonly")
    instances = DatasetCatalog.get("coco_2017_val")
    assert [s["file_name"] for s in stuff_only] == [s["file_name"] for s in instances]
    for sample, stuff, instance in zip(separated, stuff_only, instances):
        assert sample == {**instance, **stuff}
        things = _pixels(sample["sem_seg_file_name"]) == 0
        masks = np.zeros_like(things)
        for annotation in sample["annotations"]:
            masks |= _mask(annotation, *things.shape)
        assert not (things & ~masks).any()  # outlines have no holes, so there may be more of them


def test_stuff_10k_agrees_with_the_panoptic_classes(coco_root):
    theirs = MetadataCatalog.get("coco_2017_train_stuff_10k_sem_seg").stuff_classes
    ours = MetadataCatalog.get("coco_2017_train_panoptic_with_sem_seg").stuff_classes
    of_image = {
        os.path.basename(s["file_name"])[:-4]: s["sem_seg_file_name"]
        for s in DatasetCatalog.get("coco_2017_train_panoptic_with_sem_seg")
    }
    for sample in DatasetCatalog.get("coco_2017_train_stuff_10k_sem_seg"):
        one = _pixels(sample["sem_seg_file_name"])
        other = _pixels(of_image[os.path.basename(sample["file_name"])[-16:-4]])
        assert ((one == 255) == (other == 255)).all()
        pairs = {(theirs[a], ours[b]) for a, b in zip(one.ravel(), other.ravel()) if a != 255}
        assert all(b.removesuffix("-merged") == a for a, b in pairs)


@pytest.mark.parametrize("name", sorted(FACTS))
def test_missing_files_are_named_with_what_to_do(name, tmp_path, default_root):
    register_all(str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError) as error:
        DatasetCatalog.get(name)
    message = str(error.value)
    assert message.startswith(f"{tmp_path}/nowhere/coco/") and "\n" not in message
    assert "; unpack " in message and "DETECTRON2_DATASETS" in message
    scripts = {
        "sem_seg": "prepare_coco_semantic_annos_from_panoptic_annos.py",
        "separated": "prepare_panoptic_fpn.py",
        "stuffonly": "prepare_panoptic_fpn.py",
    }
    script = "prepare_coco_stuff_10k" if "10k" in name else scripts.get(name.split("c_")[-1])
    assert script is None or script in message
    archive = "image_info_test2017.zip" if "_test" in name else "2017.zip"
    assert "10k" in name or archive in message


@pytest.mark.parametrize(
    "name, gone, words",
    [
        ("coco_2017_val", "val2017/000000000011.jpg", "1 of 3 files"),
        ("coco_2017_val_panoptic", "panoptic_val2017/000000000011.png", "1 of 3 files"),
        (
            "coco_2017_val_panoptic_with_sem_seg",
            "panoptic_semseg_val2017/000000000031.png",
            "prepare_coco_semantic",
        ),
        (
            "coco_2017_val_panoptic_separated",
            "panoptic_stuff_val2017/000000000031.png",
            "prepare_panoptic_fpn",
        ),
        (
            "coco_2017_train_stuff_10k_sem_seg",
            "coco_stuff_10k/annotations_detectron2/train/COCO_train2014_000000000030.png",
            "1 of 5 pictures",
        ),
    ],
)
def test_a_missing_file_is_named(own_coco_root, name, gone, words):
    (own_coco_root / "coco" / gone).unlink()
    with pytest.raises(FileNotFoundError) as error:
        DatasetCatalog.get(name)
    assert Path(gone).stem in str(error.value) and words in str(error.value)
    assert "\n" not in str(error.value)


def _change(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda c: c["annotations"][0].update(category_id=12), "category_id=12, which the dataset"),
        (lambda c: c["annotations"][0].update(id=2), "not in COCO's format"),
        (lambda c: c.update(images=[]), "no images in it"),
        (lambda c: c["images"][0].pop("file_name"), "not in COCO's format"),
    ],
)
def test_a_wrong_instance_json_is_named(own_coco_root, change, words):
    path = own_coco_root / "coco/annotations/instances_val2017.json"
    _change(path, change)
    with pytest.raises(ValueError) as error:
        DatasetCatalog.get("coco_2017_val")
    message = str(error.value)
    assert message.startswith(f"{path}: ") and words in message and "\n" not in message
    assert message.count(f"{path}: ") == 1


@pytest.mark.parametrize("name", ["coco_2017_val", "coco_2017_val_panoptic"])
def test_a_json_cut_off_is_named(own_coco_root, name):
    kind = "panoptic" if "panoptic" in name else "instances"
    path = own_coco_root / f"coco/annotations/{kind}_val2017.json"
    path.write_text(path.read_text()[:500])
    with pytest.raises(ValueError, match=path.name) as error:
        DatasetCatalog.get(name)
    assert "unpack" in str(error.value) and "\n" not in str(error.value)


def test_a_segment_of_another_dataset_is_refused(own_coco_root):
    path = own_coco_root / "coco/annotations/panoptic_val2017.json"
    _change(path, lambda c: c["annotations"][1]["segments_info"][0].update(category_id=201))
    with pytest.raises(ValueError, match=r"000000000021\.png has category_id=201"):
        DatasetCatalog.get("coco_2017_val_panoptic")


def test_instances_of_another_range_of_ids(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    image = {"id": 5, "file_name": "a.jpg", "height": 4, "width": 6}
    annotation = {"id": 1, "image_id": 5, "category_id": 900, "bbox": [0, 0, 2, 2], "iscrowd": 0}
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"images": [image], "annotations": [annotation]}))
    (sample,) = load_instance_json(str(path), str(tmp_path), {900: 7})
    assert sample["annotations"][0]["category_id"] == 7


def test_the_class_table():
    assert [len(CLASSES), len(THINGS)] == [133, 80]
    assert [row["is_thing"] for row in CLASSES] == [True] * 80 + [False] * 53
    ids = [row["id"] for row in CLASSES]
    assert ids == sorted(set(ids)) and (ids[0], ids[79], ids[80], ids[-1]) == (1, 90, 92, 200)


def _mask(annotation: dict, height: int, width: int) -> np.ndarray:
    segmentation = annotation["segmentation"]
    if isinstance(segmentation, list):
        parts = pycocotools.mask.frPyObjects(segmentation, height, width)
        segmentation = pycocotools.mask.merge(parts)
    return pycocotools.mask.decode(segmentation).astype(bool)


def _pixels(path: str) -> np.ndarray:
    return np.asarray(Image.open(path))
