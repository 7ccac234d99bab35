"""Preparation gives what cityscapesscripts gives, survives a kill, and names what is broken."""

import contextlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from cityscapesscripts.preparation.createPanopticImgs import convert2panoptic
from cityscapesscripts.preparation.json2labelImg import json2labelImg
from killed_runs import run_until_killed
from PIL import Image

from mask2former.data.prepare import cityscapes as cityscapes_prepare
from mask2former.data.prepare.cityscapes import prepare_cityscapes


@pytest.fixture
def raw(_datasets_once, tmp_path):
    """What the downloads hold, nothing prepared."""
    root = tmp_path / "cityscapes"
    shutil.copytree(
        _datasets_once / "mini_cityscapes",
        root,
        ignore=shutil.ignore_patterns("*labelTrainIds.png", "cityscapes_panoptic_*"),
    )
    return root


def _outputs(root: Path) -> dict[str, tuple[int, bytes]]:
    """Each output's time of writing and content."""
    made = [*root.glob("gtFine/*/*/*labelTrainIds.png"), *root.glob("gtFine/cityscapes_panoptic_*")]
    made += root.glob("gtFine/cityscapes_panoptic_*/*")
    return {
        str(path.relative_to(root)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in made
        if path.is_file()
    }


@pytest.mark.parametrize("num_workers", [1, 2])
def test_outputs_are_those_of_cityscapesscripts(raw, tmp_path, num_workers):
    prepare_cityscapes(raw, num_workers, show_progress=False)
    polygons = sorted(raw.glob("gtFine/*/*/*_polygons.json"))
    assert len(polygons) == 13
    for path in polygons:
        json2labelImg(str(path), str(tmp_path / "expected.png"), "trainIds")
        made = str(path).replace("polygons.json", "labelTrainIds.png")
        assert Image.open(made).mode == "L"
        assert (np.asarray(Image.open(made)) == _pixels(tmp_path / "expected.png")).all()

    expected = tmp_path / "expected"
    expected.mkdir()
    with contextlib.redirect_stdout(io.StringIO()):
        convert2panoptic(str(raw / "gtFine"), str(expected), setNames=["train", "val"])
    pictures = sorted(path.relative_to(expected) for path in expected.glob("*/*.png"))
    assert len(pictures) == 9
    for picture in pictures:
        assert (_pixels(raw / "gtFine" / picture) == _pixels(expected / picture)).all()
    for split in ("train", "val"):
        name = f"cityscapes_panoptic_{split}.json"
        made, theirs = (json.loads((at / name).read_text()) for at in (raw / "gtFine", expected))
        assert made == theirs
    left_over = [path.name for path in (raw / "gtFine").iterdir() if path.name.startswith(".")]
    assert left_over == []


def test_a_second_run_writes_nothing(raw):
    prepare_cityscapes(raw, show_progress=False)
    before = _outputs(raw)
    prepare_cityscapes(raw, show_progress=False)
    assert _outputs(raw) == before


@pytest.mark.parametrize(
    ("function", "calls", "whole"), [("write_train_ids", 4, 4), ("panoptic_entry", 7, 21)]
)
def test_a_killed_run_goes_on_where_it_was(raw, function, calls, whole):
    run_until_killed(
        lambda: prepare_cityscapes(raw, show_progress=False), cityscapes_prepare, function, calls
    )
    before = _outputs(raw)
    assert len(before) == whole  # 13 label maps, 6 + 1 panoptic pictures, the JSON of train
    prepare_cityscapes(raw, show_progress=False)
    after = _outputs(raw)
    assert {name: after[name] for name in before} == before
    assert len(after) == 13 + 9 + 2


def test_files_cut_off_are_made_again(raw):
    prepare_cityscapes(raw, show_progress=False)
    before = {name: content for name, (_, content) in _outputs(raw).items()}
    cut = [
        "gtFine/cityscapes_panoptic_val.json",
        min(name for name in before if name.startswith("gtFine/cityscapes_panoptic_train/")),
        min(name for name in before if name.endswith("labelTrainIds.png")),
    ]
    for name in cut:
        (raw / name).write_bytes(before[name][: len(before[name]) // 2])
    prepare_cityscapes(raw, show_progress=False)
    assert {name: content for name, (_, content) in _outputs(raw).items()} == before


def test_no_ground_truth(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gtFine: no such directory; unpack gtFine_"):
        prepare_cityscapes(tmp_path)
    (tmp_path / "gtFine").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no \{train,val,test\}/CITY/\*_gtFine_polygons"):
        prepare_cityscapes(tmp_path)


def _spoil(path: Path, text: str) -> str:
    path.write_text(text)
    return path.name


@pytest.mark.parametrize("num_workers", [1, 2])
@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"imgHeight": 4, "imgWid', "not a polygons file of Cityscapes"),
        ('{"imgHeight": 4}', "not a polygons file of Cityscapes"),
        (
            '{"imgHeight": 4, "imgWidth": 4, "objects": [{"label": "dragon", "polygon": []}]}',
            "label 'dragon' is none of Cityscapes'",
        ),
    ],
)
def test_broken_polygons_are_named(raw, text, complaint, num_workers):
    name = _spoil(sorted(raw.glob("gtFine/val/*/*polygons.json"))[1], text)
    with pytest.raises(ValueError, match=rf"{name}: {complaint}"):
        prepare_cityscapes(raw, num_workers, show_progress=False)


def test_broken_or_missing_instance_ids_are_named(raw):
    path = sorted(raw.glob("gtFine/val/*/*instanceIds.png"))[1]
    path.write_bytes(path.read_bytes()[:150])
    with pytest.raises(ValueError, match=rf"{path.name}: not a whole picture of instance ids"):
        prepare_cityscapes(raw, show_progress=False)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=rf"{path.name}: no such file; unpack"):
        prepare_cityscapes(raw, show_progress=False)
    assert not (raw / "gtFine/cityscapes_panoptic_val.json").exists()


def test_groups_are_known_labels(raw):
    path = sorted(raw.glob("gtFine/val/*/*polygons.json"))[0]
    content = json.loads(path.read_text())
    square = [[0, 0], [9, 0], [9, 9], [0, 9]]
    content["objects"] = [{"label": "cargroup", "polygon": square}]
    path.write_text(json.dumps(content))
    prepare_cityscapes(raw, show_progress=False)
    made = _pixels(str(path).replace("polygons.json", "labelTrainIds.png"))
    assert np.unique(made).tolist() == [13, 255] and made[:10, :10].min() == 13


def _pixels(path: str | Path) -> np.ndarray:
    return np.asarray(Image.open(path))
