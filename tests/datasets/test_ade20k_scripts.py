"""The commands for ADE20K and Mapillary Vistas in datasets/, as a user runs them."""

import runpy
import shutil
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "datasets"
SMALL = ["--size", "48", "64", "--train", "1", "--val", "1"]
PREPARE = {
    "prepare_ade20k_sem_seg.py": ("ADEChallengeData2016", ["annotations_detectron2"]),
    "prepare_ade20k_ins_seg.py": ("ADEChallengeData2016", ["ade20k_instance_train.json"]),
    "prepare_ade20k_pan_seg.py": (
        "ADEChallengeData2016",
        ["ade20k_panoptic_train.json", "ade20k_panoptic_train"],
    ),
    "prepare_ade20k_full_sem_seg.py": (
        "ADE20K_2021_17_01",
        ["images_detectron2", "annotations_detectron2"],
    ),
}


def _run(monkeypatch, script: str, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
    runpy.run_path(str(SCRIPTS / script), run_name="__main__")


@pytest.fixture(scope="module")
def _drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("mini")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("DETECTRON2_DATASETS", str(root))
        _run(monkeypatch, "make_mini_ade20k.py", *SMALL)
        _run(monkeypatch, "make_mini_mapillary_vistas.py", root / "mini", *SMALL, "--seed", "1")
    return root / "mini"


def test_minis_are_made_beside_each_other(_drawn):
    names = sorted(path.name for path in _drawn.iterdir() if path.is_dir())
    assert names == ["ADE20K_2021_17_01", "ADEChallengeData2016", "mapillary_vistas"]
    for path in (
        "ADEChallengeData2016/ade20k_panoptic_val.json",
        "ADE20K_2021_17_01/annotations_detectron2/validation/ADE_val_00000001.tif",
        "mapillary_vistas/validation/panoptic/panoptic_2018.json",
    ):
        assert (_drawn / path).is_file()


@pytest.mark.parametrize("script", sorted(PREPARE))
@pytest.mark.parametrize("words", [[], ["ROOT", "--workers", "1"]])
def test_prepare(monkeypatch, tmp_path, capsys, _drawn, script, words):
    name, outputs = PREPARE[script]
    root = tmp_path / name
    shutil.copytree(_drawn / name, root, ignore=shutil.ignore_patterns(*outputs))
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    _run(monkeypatch, script, *[root if word == "ROOT" else word for word in words])
    printed = capsys.readouterr()
    assert printed.out == f"{root} is prepared\n"
    assert "100%" in printed.err
    for output in outputs:
        for path in [root / output, *(root / output).rglob("*")]:
            twin = _drawn / name / path.relative_to(root)
            assert path.is_dir() or path.read_bytes() == twin.read_bytes()


@pytest.mark.parametrize("script", sorted(PREPARE))
def test_mistakes_end_in_one_sentence(monkeypatch, tmp_path, script):
    with pytest.raises(SystemExit) as ended:
        _run(monkeypatch, script, tmp_path)
    text = str(ended.value.code)
    assert text.startswith(f"error: {tmp_path}/") and "; unpack ADE" in text and "\n" not in text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words, message",
    [
        (["--size", "0", "128"], "pictures of 0x128; draw them 32x32 or larger"),
        (["--train", "0"], "0 pictures for training and 8 for validation"),
        (["--seed", "-1"], "with seed -1; give at least one"),
    ],
)
def test_streets_that_cannot_be_drawn(monkeypatch, tmp_path, words, message):
    with pytest.raises(SystemExit) as ended:
        _run(monkeypatch, "make_mini_mapillary_vistas.py", tmp_path / "mini", *words)
    assert str(ended.value.code).startswith("error: ") and message in str(ended.value.code)
    assert list(tmp_path.iterdir()) == []


def test_a_mini_does_not_replace_a_dataset(monkeypatch, tmp_path):
    (tmp_path / "mapillary_vistas").mkdir()
    with pytest.raises(SystemExit, match=r"^error: .*mapillary_vistas: is there already; delete"):
        _run(monkeypatch, "make_mini_mapillary_vistas.py", tmp_path, *SMALL)
    assert list((tmp_path / "mapillary_vistas").iterdir()) == []
