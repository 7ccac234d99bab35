"""The drawn streets: true to the layout and the tools of Cityscapes, and made once, whole."""

import json
import multiprocessing
import os
from pathlib import Path

import cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling as evaluation
import numpy as np
import pytest
from cityscapesscripts.helpers.labels import id2label, name2label
from cityscapesscripts.preparation.json2labelImg import json2labelImg
from PIL import Image, ImageDraw

from mask2former.data.mini import cityscapes
from mask2former.data.mini.cityscapes import ensure_mini_cityscapes, make_mini_cityscapes
from mask2former.data.mini.maker import MiniSpec
from mask2former.data.mini.street.canvas import Canvas, Material
from mask2former.data.mini.street.scene import draw_scene

TINY = MiniSpec(height=64, width=128, num_train=1, num_val=1)


def _files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_same_seed_same_files_another_seed_other_pictures(tmp_path):
    for name, spec in (("a", TINY), ("b", TINY), ("c", MiniSpec(64, 128, 1, 1, seed=1))):
        make_mini_cityscapes(tmp_path / name, spec, show_progress=False)
    a, b, c = (_files(tmp_path / name) for name in "abc")
    assert a == b
    assert a.keys() == c.keys() and all(a[name] != c[name] for name in a if "leftImg8bit" in name)
    pictures = [content for name, content in a.items() if "leftImg8bit" in name]
    assert len(pictures) == len(set(pictures)) == 1 + 1 + cityscapes.NUM_TEST


def test_layout_is_that_of_the_downloads(datasets_root):
    root = datasets_root / "mini_cityscapes"
    images = sorted(root.glob("leftImg8bit/*/*/*"))
    splits = tuple(cityscapes.CITIES)
    assert [sum(path.parts[-3] == split for path in images) for split in splits] == [6, 3, 4]
    cities = [{path.parent.name for path in images if split in path.parts} for split in splits]
    assert not (cities[0] & cities[1] or cities[1] & cities[2] or cities[0] & cities[2])
    for path in images:
        split, city, name = path.parts[-3:]
        assert name.startswith(f"{city}_") and name.endswith("_leftImg8bit.png")
        stem = name.removesuffix("_leftImg8bit.png")
        truth = {file.name for file in (root / "gtFine" / split / city).glob(f"{stem}_*")}
        suffixes = ("polygons.json", "labelIds.png", "instanceIds.png", "color.png")
        assert {f"{stem}_gtFine_{suffix}" for suffix in suffixes} <= truth
        assert Image.open(path).mode == "RGB"


@pytest.mark.parametrize("split", [0, 1])
def test_default_pictures_show_the_classes_each_several_times(split):
    """The first twelve of the default train and val sets (val has no more), at half their size."""
    table = np.array([id2label[number].trainId for number in range(34)])
    pictures = dict.fromkeys(range(19), 0)
    areas = []
    for index in range(12):
        scene = draw_scene(128, 256, (0, split, index))
        train_ids = table[_draw_ids(scene.objects, 128, 256)]
        for train_id in np.unique(train_ids[(train_ids >= 0) & (train_ids < 19)]):
            pictures[train_id] += 1
        areas.append((train_ids == 255).mean())
    assert sum(count >= 3 for count in pictures.values()) >= 16
    assert 0.02 < np.mean(areas) < 0.2  # unlabelled: our own car, the border, bins


def test_scenes_hold_small_hidden_and_grouped_objects():
    scenes = [draw_scene(128, 256, (3, 0, index)) for index in range(8)]
    labels = {label for scene in scenes for label, _ in scene.objects}
    assert {"ego vehicle", "out of roi", "static", "persongroup", "license plate"} <= labels
    hidden = small = 0
    for scene in scenes:
        numbers = Image.new("I", (256, 128), 0)
        drawer = ImageDraw.Draw(numbers)
        for number, (_, polygon) in enumerate(scene.objects, start=1):
            drawer.polygon([tuple(point) for point in polygon], fill=number)
        visible = np.bincount(np.asarray(numbers).ravel(), minlength=len(scene.objects) + 1)
        for number, (label, polygon) in enumerate(scene.objects, start=1):
            if name2label.get(label) and name2label[label].hasInstances:
                whole = _draw_ids([(label, polygon)], 128, 256).astype(bool).sum()
                hidden += visible[number] < 0.6 * whole
                small += whole < 100
    assert hidden >= 10 and small >= 10


def test_label_pictures_agree_with_the_polygons_and_with_each_other(datasets_root, tmp_path):
    root = datasets_root / "mini_cityscapes" / "gtFine"
    for polygons in sorted(root.glob("*/*/*polygons.json")):
        base = str(polygons).removesuffix("polygons.json")
        for suffix, encoding in (("labelIds", "ids"), ("color", "color")):
            json2labelImg(str(polygons), str(tmp_path / "expected.png"), encoding)
            assert (_pixels(f"{base}{suffix}.png") == _pixels(tmp_path / "expected.png")).all()
        ids, instances = _pixels(f"{base}labelIds.png"), _pixels(f"{base}instanceIds.png")
        assert (np.where(instances >= 1000, instances // 1000, instances) == ids).all()
        counted = {int(value) for value in np.unique(instances) if value >= 1000}
        assert all(id2label[value // 1000].hasInstances for value in counted)
        content = json.loads(polygons.read_text())
        corners = np.concatenate([entry["polygon"] for entry in content["objects"]])
        assert corners.min() >= 0 and (corners <= (content["imgWidth"], 96)).all()


def test_cityscapes_own_evaluation_finds_the_ground_truth_perfect(datasets_root, monkeypatch):
    truth = [str(p) for p in datasets_root.glob("mini_cityscapes/gtFine/val/*/*labelIds.png")]
    for option, value in (("JSONOutput", False), ("quiet", True), ("evalInstLevelScore", False)):
        monkeypatch.setattr(evaluation.args, option, value)
    result = evaluation.evaluateImgLists(truth, truth, evaluation.args)
    scores = [score for score in result["classScores"].values() if not np.isnan(score)]
    assert len(scores) >= 12 and scores == [1.0] * len(scores)
    assert result["averageScoreClasses"] == 1.0


@pytest.mark.parametrize("seed", range(5))
def test_what_is_labelled_is_what_is_painted(seed):
    rng = np.random.default_rng(seed)
    canvas = Canvas(60, 100, rng)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
    star = np.stack([50 + 40 * np.cos(angles), 30 + 35 * np.sin(angles)], 1)  # partly outside
    assert canvas.add("car", [(star, Material((200, 0, 0), grain=0, blotch=0))])
    painted = canvas.finish(gain=(1, 1, 1), noise=0)[..., 0] > 100
    labelled = _draw_ids(canvas.objects, 60, 100) > 0
    assert (painted & labelled).sum() / (painted | labelled).sum() > 0.93
    assert not canvas.add("car", [(star + 500, Material((200, 0, 0)))])  # out of the picture
    assert len(canvas.objects) == 1


def test_an_existing_directory_is_not_touched(tmp_path):
    (tmp_path / "mini").mkdir()
    with pytest.raises(FileExistsError, match=r"mini: is there already; delete it"):
        make_mini_cityscapes(tmp_path / "mini", TINY)
    ensure_mini_cityscapes(tmp_path / "mini", TINY)
    assert list((tmp_path / "mini").iterdir()) == []
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError, match="file: is no directory; delete it"):
        ensure_mini_cityscapes(tmp_path / "file", TINY)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_half_made_set_never_gets_the_name(tmp_path, monkeypatch):
    real = cityscapes._write

    def fails_at_the_third(root, split, *args):
        if split == "val":
            raise OSError("no space left on device")
        real(root, split, *args)

    monkeypatch.setattr(cityscapes, "_write", fails_at_the_third)
    with pytest.raises(OSError, match="no space left"):
        ensure_mini_cityscapes(tmp_path / "mini", TINY, show_progress=False)
    assert [path.name for path in tmp_path.iterdir()] == [".mini.lock"]
    (tmp_path / ".mini.half_killed").mkdir()  # a kill -9 leaves its temporary directory
    monkeypatch.undo()
    ensure_mini_cityscapes(tmp_path / "mini", TINY, show_progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mini.lock", "mini"]


def _ensure(root: str, log: str) -> None:
    real = cityscapes.prepare_cityscapes

    def noted(*args, **kwargs):
        with open(log, "a") as file:
            file.write(f"{os.getpid()}\n")
        real(*args, **kwargs)

    cityscapes.prepare_cityscapes = noted
    ensure_mini_cityscapes(root, TINY, show_progress=False)
    assert len(list(Path(root).glob("gtFine/*/*/*labelTrainIds.png"))) == 6


def test_of_several_processes_one_makes_and_all_find_it_whole(tmp_path):
    context = multiprocessing.get_context("fork")
    arguments = (str(tmp_path / "mini"), str(tmp_path / "log"))
    processes = [context.Process(target=_ensure, args=arguments) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert len((tmp_path / "log").read_text().split()) == 1


def _pixels(path: str | Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def _draw_ids(objects: list, height: int, width: int) -> np.ndarray:
    """Label ids, drawn with Pillow here rather than by the tools under test."""
    picture = Image.new("L", (width, height), 0)
    drawer = ImageDraw.Draw(picture)
    for label, polygon in objects:
        label_id = name2label[label.removesuffix("group")].id
        if label_id >= 0:
            drawer.polygon([tuple(point) for point in polygon], fill=label_id)
    return np.asarray(picture)
