"""From dataset names to samples, on either provider of detectron2."""

import logging

import pytest
import torch
from d2_inputs import REFUSED, make_samples
from detectron2.data import (
    get_detection_dataset_dicts,
    print_instances_class_histogram,
)
from torch.utils.data import ConcatDataset, TensorDataset


def test_images_without_instances_are_left_out(register):
    samples = make_samples(6)
    samples[1]["annotations"] = []
    samples[2]["annotations"][0]["iscrowd"] = 1
    samples[3]["annotations"].append({"category_id": 0, "iscrowd": 1})
    name = register("some_empty", samples, thing_classes=["a", "b"])
    assert [s["image_id"] for s in get_detection_dataset_dicts(name)] == [0, 3, 4, 5]
    assert len(get_detection_dataset_dicts([name], filter_empty=False)) == 6


def test_datasets_are_joined_in_order(register):
    names = [register(n, make_samples(2), thing_classes=["a", "b"]) for n in ("one", "two")]
    found = get_detection_dataset_dicts(names)
    assert [s["image_id"] for s in found] == [0, 1, 0, 1]


def test_semantic_datasets_have_nothing_to_filter(register):
    name = register("semantic", [{"file_name": "a", "sem_seg_file_name": "b"}])
    assert len(get_detection_dataset_dicts(name)) == 1


def test_joined_datasets_need_the_same_classes(register):
    names = [
        register("ab", make_samples(2), thing_classes=["a", "b"]),
        register("ac", make_samples(2), thing_classes=["a", "c"]),
    ]
    with pytest.raises(ValueError, match="thing_classes"):
        get_detection_dataset_dicts(names)
    assert len(get_detection_dataset_dicts(names, check_consistency=False)) == 4


def test_images_with_few_keypoints_are_left_out(register):
    def sample(*visibilities):
        keypoints = [value for v in visibilities for value in (1, 1, v)]
        return {"annotations": [{"category_id": 0, "keypoints": keypoints}]}

    name = register("keypoints", [sample(2, 0), sample(0, 0), sample(1, 2)])
    assert len(get_detection_dataset_dicts(name, min_keypoints=1)) == 2
    assert len(get_detection_dataset_dicts(name, min_keypoints=2)) == 1


@pytest.mark.parametrize("samples", [[], [{"annotations": []}]], ids=["empty", "no annotations"])
def test_nothing_to_train_on_is_an_error(register, samples):
    name = register("nothing", samples, thing_classes=["a"])
    with pytest.raises(REFUSED, match=name):
        get_detection_dataset_dicts(name)


def test_no_names_and_unknown_names_are_errors():
    with pytest.raises(REFUSED):
        get_detection_dataset_dicts([])
    with pytest.raises(KeyError, match="no_such_dataset"):
        get_detection_dataset_dicts("no_such_dataset")


def test_torch_datasets_pass_through(register):
    dataset = TensorDataset(torch.zeros(3))
    name = register("torch", dataset)
    assert get_detection_dataset_dicts(name) is dataset
    both = get_detection_dataset_dicts([name, name])
    assert isinstance(both, ConcatDataset) and len(both) == 6


def test_histogram_counts_instances_of_each_class(caplog):
    samples = make_samples(5)
    samples[0]["annotations"].append({"category_id": 0, "iscrowd": 1})
    logger = logging.getLogger("detectron2")
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(caplog.handler)  # propagation may be off
    try:
        print_instances_class_histogram(samples, ["car", "dog", "unseen"])
    finally:
        logger.removeHandler(caplog.handler)
        logger.setLevel(level)
    words = caplog.text.replace("|", " ").split()
    for name, count in (("car", "3"), ("dog", "2"), ("unseen", "0"), ("total", "5")):
        assert words[words.index(name) + 1] == count


def test_histogram_refuses_a_category_outside_the_classes():
    with pytest.raises(REFUSED, match="1"):
        print_instances_class_histogram(make_samples(2), ["only one"])
