"""The commands for COCO in datasets/, as a user runs them."""

import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from PIL import Image

from mask2former.data.datasets import register_all

SCRIPTS = Path(__file__).parents[2] / "datasets"
SEMANTIC = "prepare_coco_semantic_annos_from_panoptic_annos.py"
STUFF = "prepare_panoptic_fpn.py"
STUFF_10K = "prepare_coco_stuff_10k_v1.0_sem_seg.py"
SMALL = ["--size", "48", "64", "--train", "3", "--val", "1"]


def _run(monkeypatch, script: str, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
    runpy.run_path(str(SCRIPTS / script), run_name="__main__")


def test_make_then_prepare_anew(monkeypatch, tmp_path, capsys):
    _run(monkeypatch, "make_mini_coco.py", tmp_path, *SMALL, "--seed", "3")
    printed = capsys.readouterr()
    assert f"DETECTRON2_DATASETS={tmp_path}" in printed.out
    assert "7/7" in printed.err  # the progress bar
    root = tmp_path / "coco"
    assert Image.open(next(root.glob("train2017/*.jpg"))).size == (64, 48)

    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    for script, made, highest in (
        (SEMANTIC, "panoptic_semseg_val2017", 132),
        (STUFF, "panoptic_stuff_train2017", 53),
        (STUFF_10K, "coco_stuff_10k/annotations_detectron2", 170),
    ):
        shutil.rmtree(root / made)
        _run(monkeypatch, script, "--workers", "1")
        printed = capsys.readouterr()
        assert printed.out.endswith(" is prepared\n") and "100%" in printed.err
        maps = [np.asarray(Image.open(path)) for path in (root / made).rglob("*.png")]
        assert len(maps) in (1, 3, 4)
        assert {*np.unique(np.stack(maps)).tolist()} <= {*range(highest + 1), 255}

    register_all(str(tmp_path))
    try:
        assert len(DatasetCatalog.get("coco_2017_train_panoptic_with_sem_seg")) == 3
    finally:
        register_all("datasets")


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("make_mini_coco.py", "coco: is there already; delete it"),
        (SEMANTIC, "panoptic_val2017.json: no such file; unpack panoptic_annotations"),
        (STUFF, "panoptic_val2017.json: no such file; unpack panoptic_annotations"),
        (STUFF_10K, "test.txt: no such file; unpack cocostuff-10k-v1.0.zip"),
    ],
)
def test_mistakes_end_in_one_sentence(monkeypatch, tmp_path, script, message):
    (tmp_path / "coco").mkdir()
    with pytest.raises(SystemExit) as ended:
        _run(monkeypatch, script, tmp_path)
    text = str(ended.value.code)
    assert text.startswith("error: ") and message in text and "\n" not in text
    assert list((tmp_path / "coco").iterdir()) == []
