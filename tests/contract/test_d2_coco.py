"""COCO's formats as dataset dicts, on either provider."""

import json
import logging
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
import pytest
from d2_inputs import IGNORE, REFUSED
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import (
    load_coco_json,
    register_coco_instances,
    register_coco_panoptic,
    register_coco_panoptic_separated,
)
from detectron2.data.datasets.coco import convert_to_coco_json
from detectron2.structures import BoxMode
from PIL import Image

PREFIX = "contract_json_"
HEIGHT, WIDTH = 20, 30
SQUARE = [2.0, 3, 8, 3, 8, 10, 2, 10]
CROWD = np.zeros((HEIGHT, WIDTH), np.uint8)
CROWD[4:9, 11:25] = 1
META = {
    "thing_dataset_id_to_contiguous_id": {3: 0, 90: 1},
    "stuff_dataset_id_to_contiguous_id": {92: 2},
    "thing_classes": ["cat", "dog"],
}


def uncompressed(mask):
    """Runs of zeros and ones by turns, column by column, as COCO's files have crowds."""
    flat = np.concatenate([[0], mask.T.ravel(), [1 - mask.T.ravel()[-1]]])
    changes = np.flatnonzero(np.diff(flat)).tolist()
    return {"size": list(mask.shape), "counts": np.diff([0, *changes]).tolist()}


def annotation(number, image_id, **changes):
    values = {
        "id": number,
        "image_id": image_id,
        "category_id": 3,
        "bbox": [2, 3, 6, 7],
        "area": 42,
        "iscrowd": 0,
        "segmentation": [SQUARE],
    }
    return {**values, **changes}


def instances():
    """Four pictures in disorder, the last without annotations; categories 90 and 3."""
    return {
        "images": [
            {"id": number, "file_name": f"{number}.jpg", "height": HEIGHT, "width": WIDTH}
            for number in (7, 139, 5, 2)
        ],
        "categories": [{"id": 90, "name": "dog"}, {"id": 3, "name": "cat"}],
        "annotations": [
            annotation(12, 139),
            annotation(11, 7, segmentation=[[1, 1, 4, 1], SQUARE, [1, 1, 4, 1, 4, 4, 1]]),
            annotation(13, 7, iscrowd=1, category_id=90, segmentation=uncompressed(CROWD)),
            annotation(15, 5, segmentation=mask_rle(), keypoints=[3, 4, 2, 0, 0, 0], color="red"),
            annotation(14, 5, segmentation=[[1, 1, 4, 4]]),
        ],
    }


def mask_rle():
    rle = mask_util.encode(np.asfortranarray(CROWD))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


@pytest.fixture(autouse=True)
def leave_no_entries():
    yield
    for catalog in (DatasetCatalog, MetadataCatalog):
        for name in [name for name in catalog if name.startswith(PREFIX)]:
            catalog.remove(name)


def write(path: Path, content) -> str:
    path.write_text(json.dumps(content))
    return str(path)


def test_instances_by_image_id(tmp_path):
    name = f"{PREFIX}coco"
    path = write(tmp_path / "instances.json", instances())
    samples = load_coco_json(path, "images", name)
    assert [sample["image_id"] for sample in samples] == [2, 5, 7, 139]
    assert samples[2]["file_name"] == "images/7.jpg"
    assert (samples[2]["height"], samples[2]["width"]) == (HEIGHT, WIDTH)
    assert [len(sample["annotations"]) for sample in samples] == [0, 1, 2, 1]
    assert samples[3]["annotations"] == [
        {
            "iscrowd": 0,
            "bbox": [2, 3, 6, 7],
            "category_id": 0,
            "segmentation": [SQUARE],
            "bbox_mode": BoxMode.XYWH_ABS,
        }
    ]
    metadata = MetadataCatalog.get(name)
    assert metadata.thing_classes == ["cat", "dog"]
    assert metadata.thing_dataset_id_to_contiguous_id == {3: 0, 90: 1}


def test_segmentations(tmp_path, caplog):
    path = write(tmp_path / "instances.json", instances())
    with caplog.at_level(logging.WARNING):
        _, of_5, of_7, _ = load_coco_json(path, "images", f"{PREFIX}coco")
    assert "1 " in caplog.text  # one annotation has no polygon of three corners
    polygons, crowd = of_7["annotations"]
    assert polygons["segmentation"] == [SQUARE]
    assert (crowd["iscrowd"], crowd["category_id"]) == (1, 1)
    assert (mask_util.decode(crowd["segmentation"]) == CROWD).all()
    (rle,) = of_5["annotations"]
    assert rle["segmentation"] == mask_rle()
    assert rle["keypoints"] == [3.5, 4.5, 2, 0.5, 0.5, 0]


def test_without_a_name_ids_stay(tmp_path):
    path = write(tmp_path / "instances.json", instances())
    samples = load_coco_json(path, "images", extra_annotation_keys=["color"])
    assert [a["category_id"] for a in samples[2]["annotations"]] == [3, 90]
    assert samples[1]["annotations"][0]["color"] == "red"
    assert "color" not in samples[2]["annotations"][0]


def test_test_sets_have_no_annotations(tmp_path):
    content = instances()
    del content["annotations"]
    path = write(tmp_path / "image_info.json", content)
    samples = load_coco_json(path, "images", f"{PREFIX}coco")
    assert [sample["annotations"] for sample in samples] == [[]] * 4


def test_annotations_of_no_image_are_left_out(tmp_path, caplog):
    content = instances()
    content["annotations"].append(annotation(16, 999))
    path = write(tmp_path / "instances.json", content)
    with caplog.at_level(logging.WARNING):
        samples = load_coco_json(path, "images", f"{PREFIX}coco")
    assert len(samples) == 4 and "instances.json" in caplog.text


@pytest.mark.parametrize("name, warns", [("coco", False), ("mine", True)])
def test_ids_with_gaps_are_mentioned(tmp_path, caplog, name, warns):
    path = write(tmp_path / "file.json", {**instances(), "annotations": []})
    with caplog.at_level(logging.WARNING):
        load_coco_json(path, "images", PREFIX + name)
    assert bool(caplog.records) == warns


@pytest.mark.parametrize(
    "changes, error",
    [
        ({"id": 12}, REFUSED),
        ({"ignore": 1}, REFUSED),
        ({"bbox": []}, REFUSED),
        ({"category_id": 4}, (KeyError, *REFUSED)),
    ],
)
def test_what_is_refused(tmp_path, changes, error):
    content = instances()
    content["annotations"].append(annotation(16, 7, **changes))
    path = write(tmp_path / "instances.json", content)
    with pytest.raises(error):
        load_coco_json(path, "images", f"{PREFIX}coco")


def test_other_classes_under_a_known_name_are_refused(tmp_path):
    name = f"{PREFIX}coco"
    MetadataCatalog.get(name).set(thing_classes=["bird"])
    with pytest.raises(REFUSED, match=name):
        load_coco_json(write(tmp_path / "instances.json", instances()), "images", name)


def test_registered_instances_are_read_when_used(tmp_path):
    name = f"{PREFIX}coco"
    path = tmp_path / "instances.json"
    register_coco_instances(name, {"author": "me"}, str(path), "images")
    assert MetadataCatalog.get(name).as_dict() == {
        "name": name,
        "json_file": str(path),
        "image_root": "images",
        "evaluator_type": "coco",
        "author": "me",
    }
    write(path, instances())
    assert len(DatasetCatalog.get(name)) == 4
    register_coco_instances(name, {"author": "me"}, str(path), "images")  # the same again
    with pytest.raises(REFUSED):
        register_coco_instances(name, {}, None, "images")


@pytest.fixture
def panoptic(tmp_path):
    """Paths of a panoptic dataset of two pictures, and its semantic and instance files."""
    for folder, ending in (("images", "jpg"), ("panoptic", "png"), ("stuff", "png")):
        (tmp_path / folder).mkdir()
        for number in (139, 7):
            picture = Image.new("L" if folder == "stuff" else "RGB", (WIDTH, HEIGHT))
            picture.save(tmp_path / folder / f"{number}.{ending}")
    segments = [
        {"id": 70000, "category_id": 90, "iscrowd": 0, "area": 9, "bbox": [0, 0, 3, 3]},
        {"id": 1, "category_id": 92, "iscrowd": 0, "area": 9, "bbox": [0, 3, 3, 3]},
    ]
    entries = [
        {"image_id": number, "file_name": f"{number}.png", "segments_info": segments}
        for number in (139, 7)
    ]
    content = instances()
    content["images"] = [image for image in content["images"] if image["id"] in (139, 7)]
    return {
        "image_root": str(tmp_path / "images"),
        "panoptic_root": str(tmp_path / "panoptic"),
        "panoptic_json": write(tmp_path / "panoptic.json", {"annotations": entries}),
        "sem_seg_root": str(tmp_path / "stuff"),
        "instances_json": write(tmp_path / "instances.json", content),
    }


def test_panoptic(panoptic):
    name = f"{PREFIX}panoptic"
    del panoptic["sem_seg_root"]
    register_coco_panoptic(name, META, **panoptic)
    samples = DatasetCatalog.get(name)
    assert samples == DatasetCatalog.get(name)  # reading changes nothing
    assert [sample["image_id"] for sample in samples] == [139, 7]
    assert samples[0] == {
        "file_name": f"{panoptic['image_root']}/139.jpg",
        "image_id": 139,
        "pan_seg_file_name": f"{panoptic['panoptic_root']}/139.png",
        "segments_info": [
            {
                "id": 70000,
                "category_id": 1,
                "iscrowd": 0,
                "area": 9,
                "bbox": [0, 0, 3, 3],
                "isthing": True,
            },
            {
                "id": 1,
                "category_id": 2,
                "iscrowd": 0,
                "area": 9,
                "bbox": [0, 3, 3, 3],
                "isthing": False,
            },
        ],
    }
    panoptic["json_file"] = panoptic.pop("instances_json")
    assert MetadataCatalog.get(name).as_dict() == {
        "name": name,
        "evaluator_type": "coco_panoptic_seg",
        "ignore_label": IGNORE,
        "label_divisor": 1000,
        **META,
        **panoptic,
    }


def test_panoptic_without_its_pictures(panoptic):
    name = f"{PREFIX}panoptic"
    del panoptic["sem_seg_root"]
    register_coco_panoptic(name, META, **panoptic)
    Path(panoptic["panoptic_root"], "139.png").unlink()
    with pytest.raises((OSError, *REFUSED), match=r"139\.png"):
        DatasetCatalog.get(name)


def test_panoptic_separated(panoptic):
    name = f"{PREFIX}coco"
    register_coco_panoptic_separated(name, {"thing_classes": META["thing_classes"]}, **panoptic)
    merged = DatasetCatalog.get(f"{name}_separated")
    assert [sample["image_id"] for sample in merged] == [7, 139]
    assert merged[1]["sem_seg_file_name"] == f"{panoptic['sem_seg_root']}/139.png"
    assert [a["category_id"] for a in merged[0]["annotations"]] == [0, 1]
    stuff = DatasetCatalog.get(f"{name}_stuffonly")
    assert stuff == [
        {
            "file_name": f"{panoptic['image_root']}/{number}.jpg",
            "sem_seg_file_name": f"{panoptic['sem_seg_root']}/{number}.png",
        }
        for number in (139, 7)  # by name
    ]
    separated = MetadataCatalog.get(f"{name}_separated")
    assert separated.json_file == panoptic["instances_json"]
    assert (separated.evaluator_type, separated.ignore_label) == ("coco_panoptic_seg", IGNORE)
    stuff_only = MetadataCatalog.get(f"{name}_stuffonly")
    assert (stuff_only.evaluator_type, stuff_only.ignore_label) == ("sem_seg", IGNORE)
    assert stuff_only.sem_seg_root == panoptic["sem_seg_root"]


def test_what_is_converted_loads_as_it_was(tmp_path):
    name, again = f"{PREFIX}coco_once", f"{PREFIX}coco_again"
    register_coco_instances(name, {}, write(tmp_path / "a.json", instances()), "images")
    DatasetCatalog.get(name)
    path = tmp_path / "b.json"
    convert_to_coco_json(name, str(path))
    first = load_coco_json(str(tmp_path / "a.json"), "images", name)
    second = load_coco_json(str(path), "", again)
    assert [s["image_id"] for s in first] == [s["image_id"] for s in second]
    for one, other in zip(first, second):
        for a, b in zip(one["annotations"], other["annotations"]):
            assert (a["category_id"], a["bbox"], a["iscrowd"]) == (
                b["category_id"],
                b["bbox"],
                b["iscrowd"],
            )
