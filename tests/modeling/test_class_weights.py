"""Weights of single classes, from the config to the loss."""

import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model
from tiny_model import example, tiny_config

from mask2former.modeling.criterion.build import read_class_weights
from mask2former.modeling.criterion.class_weights import class_weights

NAMES = ["road", "sidewalk", "traffic light", "a=b", "car"]


@pytest.fixture
def dataset():
    name = "class_weights_train"
    MetadataCatalog.get(name).set(stuff_classes=NAMES, thing_classes=["car"])
    yield name
    MetadataCatalog.remove(name)


def build(dataset, entries):
    torch.manual_seed(0)
    return build_model(
        tiny_config(*("DATASETS.TRAIN", (dataset,)), *("MODEL.MASK_FORMER.CLASS_WEIGHTS", entries))
    )


def test_named_classes_have_their_weights_and_others_one():
    weights = class_weights(["car=0.5", "traffic light=3", "a=b=0"], NAMES)
    assert weights == [1.0, 1.0, 3.0, 0.0, 0.5]
    assert class_weights([], NAMES) == [1.0] * 5
    assert class_weights(["car=2"], ["car", "tree", "car"]) == [2.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("sidewolk=2", "unknown class 'sidewolk'; did you mean sidewalk?"),
        ("zebra=2", "unknown class 'zebra'; the classes are road, sidewalk"),
        ("road", "'road' is no NAME=WEIGHT; write"),
        ("road=much", "the weight of 'road' is 'much'; give a number"),
        ("road=-1", "the weight of 'road' is '-1'; give a number"),
        ("road=nan", "the weight of 'road' is 'nan'; give a number"),
        ("road=inf", "the weight of 'road' is 'inf'; give a number"),
        ("car=3", "'car' has two weights; keep one"),
        ("auto", "is still 'auto'"),
    ],
)
def test_mistakes_are_one_sentence(entry, message):
    with pytest.raises(ValueError) as error:
        class_weights(["car=1", entry], NAMES)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert str(error.value).startswith("MODEL.MASK_FORMER.CLASS_WEIGHTS")


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"stuff_classes": ["sky", "car"], "evaluator_type": "coco_panoptic_seg"}, [1.0, 2.0]),
        ({"stuff_classes": ["sky", "car"], "evaluator_type": "coco"}, [2.0]),
        ({}, [2.0]),
    ],
)
def test_the_list_of_classes_is_the_one_that_the_model_predicts(dataset, metadata, expected):
    MetadataCatalog.remove(dataset)
    MetadataCatalog.get(dataset).set(thing_classes=["car"], **metadata)
    cfg = tiny_config("DATASETS.TRAIN", (dataset,), "MODEL.MASK_FORMER.CLASS_WEIGHTS", ["car=2"])
    assert read_class_weights(cfg, len(expected)) == expected
    with pytest.raises(ValueError, match=f"{dataset} has {len(expected)} in its metadata"):
        read_class_weights(cfg, 7)
    cfg.DATASETS.TRAIN = ()  # an evaluation has no loss
    assert read_class_weights(cfg, 7) is None


def test_weights_change_the_class_loss_alone(dataset):
    batch = [example(0)]  # its targets are of classes that the test needs to know
    present = {NAMES[i] for i in batch[0]["instances"].gt_classes.tolist()}
    plain = build(dataset, []).train()(batch)
    weighted = build(dataset, [f"{name}=5" for name in present]).train()(batch)
    absent = build(dataset, [f"{name}=5" for name in set(NAMES) - present]).train()(batch)
    assert present and set(NAMES) - present
    for name, loss in plain.items():
        assert torch.equal(absent[name], loss), name
        assert torch.equal(weighted[name], loss) == (not name.startswith("loss_ce")), name


def test_a_checkpoint_of_other_weights_does_not_change_them(dataset):
    model = build(dataset, ["car=5"])
    model.load_state_dict(build(dataset, []).state_dict())
    expected = [1.0, 1.0, 1.0, 1.0, 5.0, 0.1]
    assert model.criterion.empty_weight.tolist() == pytest.approx(expected)
