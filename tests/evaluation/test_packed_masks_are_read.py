"""What reads the masks of instances reads packed ones alike, whichever detectron2 it is of."""

import numpy as np
import pytest
import torch
from cityscapesscripts.helpers.labels import name2label
from coco_cases import SIZE, found, rectangle, truth_of
from detectron2.data import MetadataCatalog
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.utils.visualizer import ColorMode, Visualizer
from PIL import Image

from mask2former.evaluation import CityscapesInstanceEvaluator, InstanceSegEvaluator
from mask2former.layers.packed_masks import PackedMasks

CAR, BUS = rectangle(5, 10, 40, 41), rectangle(50, 52, 23, 30)


def instances():
    return found((0, 0.9, CAR), (1, 0.75, BUS), (1, 0.25, CAR))


def packed():
    result = instances()
    result.pred_masks = PackedMasks.pack(result.pred_masks)
    return result


@pytest.fixture
def metadata(tmp_path):
    name = f"packed_{tmp_path.name}"
    yield MetadataCatalog.get(name).set(thing_classes=["car", "bus"], gt_dir=str(tmp_path / "gt"))
    MetadataCatalog.remove(name)


def test_coco_results():
    results = instances_to_coco_json(packed(), 7)
    assert len(results) == 3 and results == instances_to_coco_json(instances(), 7)


def test_coco_ap(metadata):
    truth = {
        "info": {},
        "images": [{"id": 1, "height": SIZE[0], "width": SIZE[1], "file_name": "1.jpg"}],
        "categories": [{"id": 0, "name": "car"}, {"id": 1, "name": "bus"}],
        "annotations": [
            {**truth_of(1, 0, CAR), "id": 1},
            {**truth_of(1, 1, rectangle(50, 52, 23, 28)), "id": 2},
        ],
    }

    def evaluate(predicted):
        evaluator = InstanceSegEvaluator(metadata.name, boundary=True, truth=truth)
        evaluator.reset()
        evaluator.process([{"image_id": 1}], [{"instances": predicted}])
        return evaluator.evaluate()

    results, expected = evaluate(packed()), evaluate(instances())
    assert 50 < results["segm"]["AP"] < 100 and results.keys() == expected.keys()
    for task in expected:
        np.testing.assert_equal(dict(results[task]), dict(expected[task]))


def test_cityscapes(metadata, tmp_path):
    folder = tmp_path / "gt" / "ulm"
    folder.mkdir(parents=True)
    ids = np.zeros(SIZE, np.uint16)
    for name, mask in (("car", CAR), ("bus", rectangle(50, 52, 23, 28))):
        ids[mask.astype(bool)] = 1000 * name2label[name].id
    Image.fromarray(ids).save(folder / "ulm_000001_000019_gtFine_instanceIds.png")

    def evaluate(predicted):
        evaluator = CityscapesInstanceEvaluator(metadata.name)
        sample = {"file_name": str(tmp_path / "ulm" / "ulm_000001_000019_leftImg8bit.png")}
        evaluator.process([sample], [{"instances": predicted}])
        return evaluator.evaluate()["segm"]

    results = evaluate(packed())
    assert 50 < results["AP"] < 100
    np.testing.assert_equal(results, evaluate(instances()))


@pytest.mark.parametrize("mode", [ColorMode.SEGMENTATION, ColorMode.IMAGE_BW])
def test_visualizer(metadata, mode):
    metadata.set(thing_colors=[(255, 0, 0), (0, 0, 255)])

    def draw(predicted):
        image = np.full((*SIZE, 3), (90, 120, 150), np.uint8)
        visualizer = Visualizer(image, metadata, instance_mode=mode)
        np.random.seed(0)  # colours of objects
        torch.manual_seed(0)
        return visualizer.draw_instance_predictions(predicted, jittering=False).get_image()

    picture = draw(packed())
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 2
    np.testing.assert_array_equal(picture, draw(instances()))
