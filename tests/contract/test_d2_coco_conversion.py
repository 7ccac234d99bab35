"""Dataset dicts in COCO's instance format, on either provider."""

import json

import numpy as np
import pycocotools.mask as mask_util
import pytest
from d2_inputs import REFUSED
from detectron2.data.datasets.coco import convert_to_coco_dict, convert_to_coco_json
from detectron2.structures import BoxMode
from pycocotools.coco import COCO

HEIGHT, WIDTH = 20, 30
SQUARE = [2.0, 3, 8, 3, 8, 10, 2, 10]
CROWD = np.zeros((HEIGHT, WIDTH), np.uint8)
CROWD[4:9, 11:25] = 1


def samples_to_convert():
    return [
        {
            "file_name": "images/a.jpg",
            "height": HEIGHT,
            "width": WIDTH,
            "annotations": [
                {
                    "bbox": np.array([2.0, 3, 8, 10]),
                    "bbox_mode": BoxMode.XYXY_ABS,
                    "category_id": 1,
                    "segmentation": [list(SQUARE)],
                },
                {
                    "bbox": [1.23456, 0, 4, 5],
                    "bbox_mode": BoxMode.XYWH_ABS,
                    "category_id": 0,
                    "keypoints": [3.5, 4.5, 2, 0.5, 0.5, 0],
                },
                {
                    "bbox": [10, 10, 4, 5, 30],
                    "bbox_mode": BoxMode.XYWHA_ABS,
                    "category_id": 0,
                },
            ],
        },
        {
            "file_name": "images/b.jpg",
            "image_id": 70,
            "height": HEIGHT,
            "width": WIDTH,
            "annotations": [
                {
                    "bbox": [11, 4, 14, 5],
                    "bbox_mode": BoxMode.XYWH_ABS,
                    "category_id": 1,
                    "iscrowd": 1,
                    "segmentation": mask_util.encode(np.asfortranarray(CROWD)),
                }
            ],
        },
    ]


def test_conversion_to_coco(register):
    name = register(
        "converted",
        samples_to_convert(),
        thing_classes=["cat", "dog"],
        thing_dataset_id_to_contiguous_id={3: 0, 90: 1},
    )
    content = convert_to_coco_dict(name)
    assert content["images"] == [
        {"id": 0, "width": WIDTH, "height": HEIGHT, "file_name": "images/a.jpg"},
        {"id": 70, "width": WIDTH, "height": HEIGHT, "file_name": "images/b.jpg"},
    ]
    assert content["categories"] == [{"id": 3, "name": "cat"}, {"id": 90, "name": "dog"}]
    polygons, keypoints, rotated, crowd = content["annotations"]
    assert polygons == {
        "id": 1,
        "image_id": 0,
        "bbox": [2, 3, 6, 7],
        "area": 42,
        "iscrowd": 0,
        "category_id": 90,
        "segmentation": [SQUARE],
    }
    assert keypoints == {
        "id": 2,
        "image_id": 0,
        "bbox": [1.235, 0, 4, 5],
        "area": pytest.approx(20, rel=1e-6),
        "iscrowd": 0,
        "category_id": 3,
        "keypoints": [3, 4, 2, 0, 0, 0],
        "num_keypoints": 1,
    }
    assert rotated["bbox"] == [10, 10, 4, 5, 30]
    assert rotated["area"] == pytest.approx(20)
    assert (crowd["id"], crowd["image_id"], crowd["iscrowd"]) == (4, 70, 1)
    assert crowd["area"] == CROWD.sum() and isinstance(crowd["segmentation"]["counts"], str)
    assert (mask_util.decode(crowd["segmentation"]) == CROWD).all()
    json.dumps(content)


def test_conversion_of_contiguous_ids_and_of_nothing(register):
    samples = samples_to_convert()
    content = convert_to_coco_dict(register("plain", samples, thing_classes=["cat", "dog"]))
    assert [a["category_id"] for a in content["annotations"]] == [1, 0, 0, 1]
    for sample in samples:
        sample["annotations"] = []
    assert "annotations" not in convert_to_coco_dict(
        register("empty", samples, thing_classes=["cat"])
    )


@pytest.mark.parametrize("changes", [{"bbox": [1, 2, 3]}, {"segmentation": "mask"}])
def test_what_cannot_be_converted(register, changes):
    samples = samples_to_convert()
    samples[0]["annotations"][0].update(changes)
    name = register("wrong", samples, thing_classes=["cat", "dog"])
    with pytest.raises(REFUSED):
        convert_to_coco_dict(name)


def test_converted_file_is_written_once_and_read_by_pycocotools(register, tmp_path):
    name = register("converted", samples_to_convert(), thing_classes=["cat", "dog"])
    path = tmp_path / "new" / "coco.json"
    convert_to_coco_json(name, str(path))
    api = COCO(str(path))
    (crowd,) = api.loadAnns(api.getAnnIds(imgIds=[70]))
    assert (api.annToMask(crowd) == CROWD).all()
    path.write_text("{}")
    convert_to_coco_json(name, str(path))
    assert path.read_text() == "{}"
    convert_to_coco_json(name, str(path), allow_cached=False)
    assert len(json.loads(path.read_text())["annotations"]) == 4
