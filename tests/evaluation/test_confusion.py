"""Counted pixels, against counting them one by one."""

import itertools
import math

import numpy as np
import pytest
import torch

from mask2former.evaluation import confusion
from mask2former.evaluation.confusion import (
    class_counts,
    class_scores,
    pair_counts,
    predicted_labels,
)
from mask2former.evaluation.processes import sum_over_processes


@pytest.mark.parametrize("num_classes", [1, 2, 19, 256, 257, 300])
@pytest.mark.parametrize("chunk_pixels", [1, 20, 1000])
def test_the_first_of_the_highest_scores_is_predicted(monkeypatch, num_classes, chunk_pixels):
    monkeypatch.setattr(confusion, "CHUNK_PIXELS", chunk_pixels)
    generator = torch.Generator().manual_seed(num_classes)
    scores = torch.randint(-3, 4, (num_classes, 6, 7), generator=generator).float()  # many ties
    found = predicted_labels(scores)
    assert not found.dtype.is_floating_point
    assert found.tolist() == scores.argmax(0).tolist()
    assert predicted_labels(scores.mT).tolist() == found.T.tolist()
    last = scores.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    assert predicted_labels(last).tolist() == found.tolist()
    half = scores.to(torch.bfloat16)
    assert predicted_labels(half).tolist() == half.argmax(0).tolist()


def test_the_last_of_many_classes_is_predicted():
    for num_classes in (256, 257):
        scores = torch.zeros(num_classes, 2, 2)
        scores[-1, 0, 1] = 1
        assert predicted_labels(scores).tolist() == [[0, num_classes - 1], [0, 0]]


def test_scores_leave_the_model_as_they_came():
    scores = torch.rand(3, 4, 5)
    before = scores.clone()
    predicted_labels(scores)
    assert torch.equal(scores, before)


def test_labels_are_what_they_are():
    labels = torch.tensor([[3, 1]], dtype=torch.int16)
    assert predicted_labels(labels) is labels


@pytest.mark.parametrize("shape, dtype", [((2, 2), torch.float32), ((2, 2, 2), torch.int64)])
def test_what_is_neither_scores_nor_labels_is_refused(shape, dtype):
    with pytest.raises(ValueError, match="or integer labels"):
        predicted_labels(torch.zeros(shape, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
@pytest.mark.parametrize("num_true, num_predicted", [(2, 3), (16, 16), (34, 19), (250, 250)])
def test_pairs_are_counted_in_any_type(num_true, num_predicted, dtype):
    generator = torch.Generator().manual_seed(num_true)
    truth, prediction = (
        torch.randint(number, (9, 11), generator=generator) for number in (num_true, num_predicted)
    )
    truth[0, 0], prediction[0, 0] = num_true - 1, num_predicted - 1
    expected = np.zeros((num_true, num_predicted), np.int64)
    for pair in zip(truth.flatten().tolist(), prediction.flatten().tolist()):
        expected[pair] += 1
    found = pair_counts(truth.to(dtype), prediction.to(dtype), num_true, num_predicted)
    assert found.dtype == torch.int64 and found.tolist() == expected.tolist()


@pytest.mark.parametrize("most_pairs", [0, 10**6])
def test_classes_are_counted_with_pairs_and_without(monkeypatch, most_pairs):
    monkeypatch.setattr(confusion, "MOST_PAIRS", most_pairs)
    truth = torch.tensor([[0, 0, 1, 3], [1, 3, 0, 1]], dtype=torch.uint8)  # 3 is ignored
    prediction = torch.tensor([[0, 1, 1, 1], [1, 2, 0, 2]])
    right, true, predicted = class_counts(truth, prediction, 3).tolist()
    assert right == [2, 2, 0] and true == [3, 3, 0] and predicted == [2, 3, 1]


def test_scores_by_hand():
    counts = np.array([[30, 10, 0, 0], [40, 10, 0, 50], [30, 40, 5, 25]])
    scores = class_scores(counts, ["a", "b", "absent", "missed"])
    ious = {"a": 75, "b": 25, "absent": math.nan, "missed": 0}
    accuracies = {"a": 75, "b": 100, "absent": math.nan, "missed": 0}
    expected = {"mIoU": 100 / 3, "fwIoU": 0.4 * 75 + 0.1 * 25}
    expected |= {f"IoU-{name}": value for name, value in ious.items()}
    expected |= {"mACC": 175 / 3, "pACC": 40}
    expected |= {f"ACC-{name}": value for name, value in accuracies.items()}
    assert list(scores) == list(expected)
    assert scores == pytest.approx(expected, nan_ok=True)


def test_counts_of_two_processes_are_added(monkeypatch):
    one, other = [np.array([1, 2]), np.array([0.5])], [np.array([10, 20]), np.array([0.25])]
    parts = [(one, {"a", "b"}), (other, {"c"})]
    monkeypatch.setattr("detectron2.utils.comm.gather", lambda data: parts)
    sums, seen = sum_over_processes(one, {"a", "b"}, "streets")
    assert [s.tolist() for s in sums] == [[11, 22], [0.75]]
    assert seen == {"a", "b", "c"}


def test_an_image_of_two_processes_is_one_sentence(monkeypatch):
    others = [([np.array([1])], {"b", "c"}), ([np.array([1])], {"b"})]
    monkeypatch.setattr("detectron2.utils.comm.gather", lambda data: [data, *others])
    with pytest.raises(ValueError, match="streets: 2 images were predicted by two processes"):
        sum_over_processes([np.array([1])], {"a", "b"}, "streets")


def test_other_processes_have_no_sums(monkeypatch):
    monkeypatch.setattr("detectron2.utils.comm.gather", lambda data: [])
    monkeypatch.setattr("detectron2.utils.comm.is_main_process", lambda: False)
    assert sum_over_processes([np.array([1])], {"a"}, "streets") is None


def test_every_pair_of_labels_has_its_place():
    for truth, prediction in itertools.product(range(3), range(2)):
        counts = pair_counts(torch.tensor([[truth]]), torch.tensor([[prediction]]), 3, 2)
        assert counts.nonzero().tolist() == [[truth, prediction]]
