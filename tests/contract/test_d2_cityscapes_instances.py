"""detectron2's CityscapesInstanceEvaluator gives the same numbers whichever detectron2 provides it.

The numbers are compared with those of our own evaluator, which has tests against cityscapesscripts.
"""

import importlib
import sys
import types
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detectron2.evaluation import CityscapesInstanceEvaluator
from detectron2.structures import Instances
from PIL import Image

import mask2former
from mask2former.evaluation.cityscapes_instances import (
    THINGS,
    average_precision,
    judge,
    regions_of,
)
from mask2former.layers.packed_masks import PackedMasks

SCRIPT = "cityscapesscripts.evaluation.evalInstanceLevelSemanticLabeling"
COPIED = "deeplearning.projects.cityscapesApi"
SIZE = (40, 60)


@pytest.fixture(autouse=True)
def _usable_cityscapesscripts(monkeypatch):
    """The real evaluator imports its authors' internal copy of cityscapesscripts, which calls a
    function that NumPy 2.4 has removed, and writes what JSON does not take."""
    if mask2former.DETECTRON2_PROVIDER == "embedded":
        return
    script = importlib.import_module(SCRIPT)
    parts = ["cityscapesscripts", "cityscapesscripts.helpers", "cityscapesscripts.evaluation"]
    for name in (*parts, "cityscapesscripts.helpers.labels", SCRIPT):
        monkeypatch.setitem(sys.modules, f"{COPIED}.{name}", importlib.import_module(name))
    for depth in (1, 2, 3):
        name = ".".join(COPIED.split(".")[:depth])
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setattr(script, "writeDict2JSON", lambda *_: None)
    if not hasattr(np, "in1d"):
        monkeypatch.setattr(script, "np", SimpleNamespace(**vars(np), in1d=np.isin))


def draw(generator):
    """Instance ids (H,W), and what is predicted: (class, score, mask)."""
    ids = np.full(SIZE, 7, np.uint16)
    predictions = []
    for number in range(6):
        y, x = generator.integers(0, 20), generator.integers(0, 40)
        height, width = generator.integers(12, 20, 2)
        is_car = bool(generator.random() < 0.6)
        ids[y : y + height, x : x + width] = (26000 if is_car else 24000) + number
        mask = np.zeros(SIZE, bool)
        mask[y + 1 : y + height, x : x + width + 1] = True
        score = float(np.float32(generator.random()))
        predictions.append((THINGS.index("car" if is_car else "person"), score, mask))
    ids[:12, :12] = 26  # a group of cars
    return ids, predictions


@pytest.fixture
def cityscapes(register, tmp_path):
    """A dataset's name, and the file, ground truth and predictions of each image."""
    generator = np.random.default_rng(2)
    images = []
    city = tmp_path / "gtFine" / "val" / "aachen"
    city.mkdir(parents=True)
    for i in range(3):
        ids, predictions = draw(generator)
        Image.fromarray(ids).save(city / f"aachen_{i:06}_000019_gtFine_instanceIds.png")
        images.append((f"aachen_{i:06}_000019_leftImg8bit.png", ids, predictions))
    name = register("city_instances", [], gt_dir=str(city.parent), thing_classes=THINGS)
    return name, images


def instances_of(predictions):
    result = Instances(SIZE)
    result.pred_classes = torch.tensor([c for c, _, _ in predictions])
    result.scores = torch.tensor([score for _, score, _ in predictions])
    result.pred_masks = torch.from_numpy(np.array([mask for _, _, mask in predictions]))
    return result


@pytest.mark.parametrize("pack", [torch.Tensor.clone, PackedMasks.pack])
def test_average_precision(cityscapes, pack):
    name, images = cityscapes
    evaluator = CityscapesInstanceEvaluator(name)
    evaluator.reset()
    judged = []
    for file_name, ids, predictions in images:
        instances = instances_of(predictions)
        instances.pred_masks = pack(instances.pred_masks)
        evaluator.process([{"file_name": f"aachen/{file_name}"}], [{"instances": instances}])
        classes, scores, masks = (np.array(values) for values in zip(*predictions))
        judged.append(judge(classes, scores, torch.from_numpy(masks), regions_of(ids)))
    folder = Path(evaluator._temp_dir)
    assert len(list(folder.glob("*_pred.txt"))) == 3
    results = evaluator.evaluate()
    assert not folder.exists()
    assert list(results) == ["segm"] and list(results["segm"]) == ["AP", "AP50"]
    expected = average_precision(judged)
    assert 10 < expected["AP"] < expected["AP50"] < 95
    for metric in ("AP", "AP50"):
        assert results["segm"][metric] == pytest.approx(expected[metric], rel=1e-9)


def test_every_image_needs_a_prediction(cityscapes):
    name, images = cityscapes
    evaluator = CityscapesInstanceEvaluator(name)
    evaluator.reset()
    for file_name, _, _ in images[1:]:
        evaluator.process([{"file_name": file_name}], [{}])  # a model without instances
    with pytest.raises((FileNotFoundError, SystemExit)):
        evaluator.evaluate()
