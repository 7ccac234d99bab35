"""The row `evaluation`, on small pictures: who is compared, and with what scores none is."""

import json
import math

import numpy as np
import pytest
from benchmarks import drawn_streets, evaluation
from benchmarks.drawn_predictions import disturbed_labels, disturbed_objects, disturbed_segments

SMALL = ("--size", 96, 192, "--repeat", 1, "MODEL.DEVICE", "cpu")


@pytest.fixture(autouse=True)
def few(monkeypatch):
    for module in (evaluation, drawn_streets):
        monkeypatch.setattr(module, "NUM_INSTANCES", 12)
    monkeypatch.setattr(evaluation, "COCO_SIZE", (96, 128))
    monkeypatch.setattr(evaluation, "NUM_COCO_DRAWN", 2)
    monkeypatch.setattr(evaluation, "NUM_COCO_IMAGES", 6)


def test_all_give_what_the_tools_give(run_tool, tmp_path):
    code, out, err = run_tool("benchmark.py", "evaluation", "--json", tmp_path / "x", *SMALL)
    assert code is None, err
    (table,) = json.loads((tmp_path / "x").read_text())["tables"]
    found = {}
    for row in table["rows"]:
        found.setdefault(row["work"], []).append(row)
    assert [[row["by"].split(",")[0] for row in rows] for rows in found.values()] == [
        *[["cityscapesscripts", "ours"]] * 3,
        ["a loop like panopticapi's", "ours"],
        ["pycocotools", "ours"],
        ["pycocotools", "ours"],
    ]
    for tool, *ours in found.values():
        assert tool["times as fast as the tool"] == 1 and tool["largest difference"] == 0
        for row in ours:
            assert 0 <= row["largest difference"] < 1e-6
            speed = tool["median ms"] / row["median ms"]  # of one round
            assert row["times as fast as the tool"] == pytest.approx(speed)
    assert "A forward pass of quick_start.yaml takes" in out
    assert "semantic, Cityscapes" in out and "C extension" in out


@pytest.mark.parametrize("more", [1e-5, math.nan])
def test_other_scores_are_no_contest(more):
    runs = {"the tool": lambda: {"PQ": 45.0}, "ours": lambda: {"PQ": 45 + more}}
    contest = evaluation.Contest("panoptic", 1, "the tool", runs)
    with pytest.raises(ValueError, match="panoptic: what ours gives differs from what the tool"):
        evaluation.compare(contest, 1, "cpu")


def test_what_is_nan_for_one_has_to_be_for_the_other():
    nan = math.nan
    assert evaluation.largest_difference({"a": nan, "b": 1, "c": 2}, {"b": 1, "a": nan}) == 0
    assert evaluation.largest_difference({"a": nan}, {"a": 1.0}) == math.inf
    assert evaluation.largest_difference({"a": 1}, {"b": 1}) == math.inf
    assert evaluation.largest_difference({"a": 1, "b": 5}, {"a": 3, "b": 4.5}) == 2


def generator():
    return np.random.default_rng(3)


def test_predictions_are_wrong_here_and_there_and_the_same_each_time():
    truth = np.arange(64 * 96).reshape(64, 96) // 1000
    truth[-9:] = 255
    first, again = (disturbed_labels(truth, 6, 5, generator()) for _ in range(2))
    assert np.array_equal(first, again) and first.max() < 6
    assert 0.1 < (first == truth).mean() < 0.9

    found = disturbed_objects([3, 4, 5], 60, [3, 4, 5, 6], generator())
    assert found == disturbed_objects([3, 4, 5], 60, [3, 4, 5, 6], generator())
    assert len(found) == 60 and 0 < sum(label != 3 + i for i, label, _ in found) < 30
    assert disturbed_objects([], 60, [3], generator()) == []

    ids = 70_000 + np.arange(64 * 96).reshape(64, 96) % 96 // 8
    segments = [{"id": i, "category_id": i % 5} for i in range(70_001, 70_012)]  # one is a crowd
    predicted, kept = disturbed_segments(ids, segments, generator())
    assert set(np.unique(predicted).tolist()) - {0} == {segment["id"] for segment in kept}
    assert 0.2 < (predicted == ids).mean() < 1 and 70_000 not in predicted
