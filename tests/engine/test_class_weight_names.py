"""MODEL.MASK_FORMER.CLASS_WEIGHTS on the way from the command line to the model."""

import logging

import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from detectron2.utils import comm
from drawn_shapes import write_coco, write_semantic
from PIL import Image

from mask2former.data import class_counts
from mask2former.data.class_weights import resolve_class_weights
from mask2former.engine import argument_parser
from mask2former.engine.run import setup
from mask2former.modeling.criterion.build import read_class_weights

KEY = "MODEL.MASK_FORMER.CLASS_WEIGHTS"


@pytest.fixture
def shapes(tmp_path, monkeypatch):
    """Semantic data of which one picture in four shows a box."""
    name = write_semantic(tmp_path, count=4)
    for number in range(3):
        path = tmp_path / "labels" / f"{number}.png"
        pixels = np.array(Image.open(path))
        pixels[pixels == 2] = 255
        Image.fromarray(pixels).save(path)
    monkeypatch.chdir(tmp_path)
    return name


def config(name, weights, *words, file="quick_start.yaml"):
    opts = ("DATASETS.TRAIN", name, "DATASETS.TEST", name, "MODEL.DEVICE", "cpu", KEY, weights)
    return setup(argument_parser().parse_args(["--config-file", file, *words, *opts]))


def test_auto_counts_the_training_set(shapes, caplog):
    cfg = config(shapes, "['auto']")
    assert cfg.MODEL.MASK_FORMER.CLASS_WEIGHTS == ["auto"]
    logging.getLogger("mask2former").propagate = True  # for caplog
    with caplog.at_level("INFO", "mask2former"):
        resolved = resolve_class_weights(cfg)
    # 1, 1 and 1 / sqrt(1/4) over their mean 4/3
    assert resolved.MODEL.MASK_FORMER.CLASS_WEIGHTS == ["floor=0.75", "disk=0.75", "box=1.5"]
    assert resolved.is_frozen() and cfg.MODEL.MASK_FORMER.CLASS_WEIGHTS == ["auto"]
    assert read_class_weights(resolved, 3) == [0.75, 0.75, 1.5]
    rows = [line.split() for line in caplog.text.splitlines()]
    assert ["box", "1", "1.5"] in rows
    assert resolve_class_weights(resolved) is resolved


def test_auto_counts_objects_by_pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = config(write_coco(tmp_path), "['auto']", file="quick_start_instance.yaml")
    assert resolve_class_weights(cfg).MODEL.MASK_FORMER.CLASS_WEIGHTS == ["disk=1", "box=1"]


def test_one_process_counts_for_all(shapes, monkeypatch):
    cfg = config(shapes, "['auto']")
    alone = resolve_class_weights(cfg).MODEL.MASK_FORMER.CLASS_WEIGHTS
    counted = class_counts.values_of_labels(
        [sample["sem_seg_file_name"] for sample in DatasetCatalog.get(shapes)]
    )
    told = [v & {0, 1, 2} for v in counted]
    monkeypatch.setattr(comm, "is_main_process", lambda: False)
    monkeypatch.setattr(comm, "all_gather", lambda mine: [told, mine])
    monkeypatch.setattr(class_counts, "values_of_labels", None)
    assert alone == resolve_class_weights(cfg).MODEL.MASK_FORMER.CLASS_WEIGHTS


def test_an_evaluation_counts_nothing(shapes):
    cfg = config(shapes, "['auto']", "--eval-only")
    assert cfg.MODEL.MASK_FORMER.CLASS_WEIGHTS == []


@pytest.mark.parametrize(
    "weights, expected",
    [
        ("['boks=2']", "unknown class 'boks'; did you mean box?"),
        ("['box=-1']", "the weight of 'box' is '-1'"),
        ("['box']", "'box' is no NAME=WEIGHT"),
        ("['auto', 'box=2']", "'auto'"),
    ],
)
def test_weights_that_cannot_be(shapes, weights, expected):
    with pytest.raises(ValueError) as error:
        config(shapes, weights)
    assert str(error.value).startswith(KEY)
    assert expected in str(error.value) and "\n" not in str(error.value)
