"""tools/benchmark.py data: what it measures of small pictures, and what a worker sends."""

import json

import cv2
import numpy as np
import pytest
import torch
from benchmarks import data
from detectron2.structures import Instances

from mask2former.data.datasets import register_all
from mask2former.data.files import datasets_root

SMALL = ("INPUT.MIN_SIZE_TRAIN", "(48,)", "INPUT.CROP.SIZE", "(32,48)", "INPUT.IMAGE_SIZE", 64)
WORDS = ("--size", 64, 96, "--repeat", 1, "--images-per-second", "0.001,1e9", *SMALL)


@pytest.fixture
def measured(run_tool, tmp_path, monkeypatch):
    """Run the row in this process: what was printed, and its tables."""
    threads = torch.get_num_threads()
    monkeypatch.setattr(data, "alone", lambda function, *args: function(*args))
    monkeypatch.setattr(data, "NUM_SAMPLES", 3)
    monkeypatch.setattr(data, "NUM_PICTURES", 2)

    def run(*words):
        code, out, err = run_tool("benchmark.py", "data", "--json", tmp_path / "x", *words)
        assert code is None, err
        return out, [table["rows"] for table in json.loads((tmp_path / "x").read_text())["tables"]]

    yield run
    torch.set_num_threads(threads)
    cv2.setNumThreads(-1)  # as many as there are cores
    register_all(datasets_root())


def test_all_cases(measured):
    out, (rows, needed) = measured(*WORDS, "DATALOADER.NUM_WORKERS", 0)
    titles = [case.title for case in data.CASES]
    found = [(row["pictures"], row["mapper"]) for row in rows]
    assert found == [(title, name) for title in titles for name in ("plain", "ours")]
    for plain, ours in zip(rows[::2], rows[1::2]):
        assert plain["times as fast as plain"] == plain["times plain's bytes"] == 1
        speed = ours["samples/s"] / plain["samples/s"]
        assert ours["times as fast as plain"] == pytest.approx(speed)
        assert ours["times plain's bytes"] == ours["kB a sample"] / plain["kB a sample"] < 1
        assert ours["samples/s of 0 workers"] > 0
    for row in needed:
        assert row["workers for 0.001 img/s"] == 1 and row["workers for 1e+09 img/s"] > 1000
    assert "| Cityscapes, crops      | plain" in out and "Workers that feed a training" in out


def test_own_data_through_workers(measured, workplace):
    words = ("--config-file", "config.yaml", "--repeat", 2, "DATALOADER.NUM_WORKERS", 1)
    _, (rows, _) = measured(*words)
    assert [(row["pictures"], row["mapper"]) for row in rows] == [
        ("config.yaml", "plain"),
        ("config.yaml", "ours"),
    ]
    assert all(row["samples/s of 1 workers"] > 0 for row in rows)
    panoptic = ("DATASETS.TRAIN", "('mini_cityscapes_fine_panoptic_train',)")
    panoptic += ("INPUT.DATASET_MAPPER_NAME", "mask_former_panoptic")
    _, (rows, _) = measured(*words, *panoptic)
    assert [row["mapper"] for row in rows] == ["ours"]
    assert rows[0]["times as fast as plain"] is None


def test_what_a_worker_sends():
    whole = torch.zeros(1000, dtype=torch.uint8)
    assert 1000 < data.sent_bytes({"image": whole}) < 1100
    # A view is sent with all that it is a part of, but once.
    views = Instances((4, 4), gt_masks=whole[:10], others=whole[500:].view(10, -1))
    assert 1000 < data.sent_bytes({"instances": views}) < 1400
    assert data.sent_bytes({"array": np.zeros(500)}) > 4000


@pytest.mark.parametrize("words, told", [("0,1", "0 is too small"), ("x", "invalid")])
def test_speeds_that_cannot_be(run_tool, words, told):
    code, _, err = run_tool("benchmark.py", "data", "--images-per-second", words)
    assert code == 2 and "--images-per-second: " in err and told in err
