"""The commands in datasets/, as a user runs them."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SCRIPTS = Path(__file__).parents[2] / "datasets"
SMALL = ["--size", "64", "128", "--train", "2", "--val", "1"]


def _run(monkeypatch, script: str, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
    runpy.run_path(str(SCRIPTS / script), run_name="__main__")


def test_make_then_prepare(monkeypatch, tmp_path, capsys):
    root = tmp_path / "mini"
    _run(monkeypatch, "make_mini_cityscapes.py", root, *SMALL, "--seed", "3")
    printed = capsys.readouterr()
    assert f"python datasets/prepare_cityscapes.py {root}" in printed.out
    assert "7/7" in printed.err  # the progress bar
    assert not list(root.glob("gtFine/*/*/*labelTrainIds.png"))
    assert Image.open(next(root.glob("leftImg8bit/train/*/*.png"))).size == (128, 64)

    _run(monkeypatch, "prepare_cityscapes.py", root, "--workers", "1")
    printed = capsys.readouterr()
    assert printed.out == f"{root} is prepared\n"
    assert "labelTrainIds: 100%" in printed.err and "cityscapes_panoptic_val" in printed.err
    made = sorted(root.glob("gtFine/*/*/*labelTrainIds.png"))
    assert len(made) == 7
    assert set(np.unique(np.asarray(Image.open(made[0])))) <= {*range(19), 255}


def test_root_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    _run(monkeypatch, "make_mini_cityscapes.py", *SMALL)
    assert (tmp_path / "mini_cityscapes" / "leftImg8bit" / "val").is_dir()


@pytest.mark.parametrize(
    ("script", "root", "message"),
    [
        ("make_mini_cityscapes.py", "there", "there: is there already; delete it, or name another"),
        ("prepare_cityscapes.py", "there", "gtFine: no such directory; unpack gtFine_trainvaltest"),
    ],
)
def test_mistakes_end_in_one_sentence(monkeypatch, tmp_path, script, root, message):
    (tmp_path / root).mkdir()
    with pytest.raises(SystemExit) as ended:
        _run(monkeypatch, script, tmp_path / root)
    text = str(ended.value.code)
    assert text.startswith("error: ") and message in text and "\n" not in text
    assert list((tmp_path / root).iterdir()) == []


@pytest.mark.parametrize(
    "words, message",
    [
        (["--size", "0", "128"], "pictures of 0x128; draw them 32x32 or larger"),
        (["--train", "-5"], "-5 pictures for training"),
        (["--seed", "-1"], "with seed -1; give"),
    ],
)
def test_streets_that_cannot_be_drawn(monkeypatch, tmp_path, words, message):
    with pytest.raises(SystemExit) as ended:
        _run(monkeypatch, "make_mini_cityscapes.py", tmp_path / "mini", *words)
    assert str(ended.value.code).startswith("error: ") and message in str(ended.value.code)
    assert list(tmp_path.iterdir()) == []
