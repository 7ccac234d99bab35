"""Predictions that other programs wrote are judged too; what is wrong with some is one sentence."""

import contextlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pycocotools.mask
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from panopticapi.evaluation import pq_compute
from panopticapi.utils import id2rgb, rgb2id
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from saved_predictions import config, edit, judge, save

from mask2former.evaluation.predictions.folder import folder_of

INSTANCES, PANOPTIC, SEMANTIC = "coco_2017_val", "coco_2017_val_panoptic", "ade20k_sem_seg_val"
STREETS = "mini_cityscapes_fine_panoptic_val"


# ------------------------------------------------------------------------------ made by hand
def write_instances(path, truth, rng):
    """Every object, moved, without a box; scores that are the same but for the last digits."""
    results = []
    for number, annotation in enumerate(truth.dataset["annotations"]):
        mask = np.roll(truth.annToMask(annotation), int(rng.integers(-4, 5)), axis=1)
        rle = pycocotools.mask.encode(np.asfortranarray(mask))
        rle["counts"] = rle["counts"].decode()
        if number % 2:  # not compressed, as COCO's crowds are
            runs = np.flatnonzero(np.diff(mask.T.ravel(), prepend=0, append=2))
            rle["counts"] = np.diff(runs, prepend=0).tolist()
        results.append(
            {
                "image_id": annotation["image_id"],
                "category_id": annotation["category_id"],
                "score": 0.5 + 1e-12 * int(rng.integers(100)),
                "segmentation": rle,
            }
        )
    path.write_text(json.dumps(results))


@pytest.mark.parametrize("tool", ["fast", "reference"])
def test_a_json_of_instances_has_the_numbers_of_pycocotools(minis, tmp_path, tool):
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(MetadataCatalog.get(INSTANCES).json_file)
        path = tmp_path / "coco_instances_results.json"
        write_instances(path, truth, np.random.default_rng(0))
        results = json.loads(path.read_text())
        for result in results:
            if isinstance(result["segmentation"]["counts"], list):
                size = result["segmentation"]["size"]
                result["segmentation"] = pycocotools.mask.frPyObjects(result["segmentation"], *size)
        loaded = truth.loadRes(results)
        expected = {}
        for task in ("bbox", "segm"):
            evaluation = COCOeval(truth, loaded, task)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            expected[task] = 100 * evaluation.stats[0]
    found = judge(config(INSTANCES, judge=tool), tmp_path)
    assert 5 < expected["segm"] < 95
    for task, value in expected.items():
        assert found[task]["AP"] == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize("tool", ["fast", "reference"])
def test_panoptic_pngs_have_the_numbers_of_panopticapi(minis, tmp_path, tool):
    metadata = MetadataCatalog.get(PANOPTIC)
    truth = json.loads(Path(metadata.panoptic_json).read_text())["annotations"]
    annotations = []
    (tmp_path / "panoptic" / "below").mkdir(parents=True)
    for number, sample in enumerate(DatasetCatalog.get(PANOPTIC)):
        true_ids = rgb2id(np.asarray(Image.open(sample["pan_seg_file_name"])))
        ids = np.zeros(true_ids.shape, np.int64)
        infos = []
        for one in truth[number]["segments_info"]:
            mask = np.roll(true_ids == one["id"], 2, axis=0)
            if mask.any() and not ids[mask].any():
                ids[mask] = 2**24 - 1 - len(infos)
                infos.append({"id": 2**24 - 1 - len(infos), "category_id": one["category_id"]})
        name = f"below/{number}.png"  # a name of its own, in a folder of its own
        Image.fromarray(id2rgb(ids)).save(tmp_path / "panoptic" / name)
        entry = {"image_id": sample["image_id"], "file_name": name, "segments_info": infos}
        annotations.append(entry)
    path = tmp_path / "panoptic.json"
    path.write_text(json.dumps({"annotations": annotations, "info": {}}))
    expected = pq_compute(metadata.panoptic_json, str(path), metadata.panoptic_root)
    found = judge(config(PANOPTIC, judge=tool), tmp_path)["panoptic_seg"]
    assert 5 < found["PQ"] < 95
    for group, suffix in (("All", ""), ("Things", "_th"), ("Stuff", "_st")):
        for score in ("pq", "sq", "rq"):
            value = 100 * expected[group][score]
            assert found[score.upper() + suffix] == pytest.approx(value, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("mode", ["P", "I;16"])
def test_label_maps_of_other_kinds(minis, tmp_path, mode):
    cfg = config(SEMANTIC, "sem_seg")
    results = save(cfg, tmp_path)
    for path in (folder_of(SEMANTIC, tmp_path / "predictions") / "sem_seg").iterdir():
        labels = np.asarray(Image.open(path))
        picture = Image.fromarray(labels if mode == "P" else labels.astype(np.uint16))
        if mode == "P":
            picture.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
        assert picture.mode == mode
        picture.save(path)
    np.testing.assert_equal(judge(cfg, tmp_path), results)


@pytest.mark.parametrize("tool", ["fast", "reference"])
def test_predictions_named_as_detectron2_names_cityscapes(minis, tmp_path, tool):
    """All in one folder, by the pictures' whole names, masks with 1 instead of 255."""
    cfg = config(STREETS, "sem_seg", "instances", judge=tool)
    results = save(cfg, tmp_path)
    folder = folder_of(STREETS, tmp_path / "predictions")
    for path in list((folder / "cityscapes_sem_seg").iterdir()):
        path.rename(path.with_name(path.name.replace("labelIds", "leftImg8bit_pred")))
    flat = folder / "cityscapes_instances"
    for path in list((flat / "masks").iterdir()):
        mask = np.asarray(Image.open(path)).astype(np.uint8)
        assert mask.max() == 1
        frame, number = path.stem.rsplit("_", 1)
        Image.fromarray(mask).save(flat / f"{frame}_leftImg8bit_{number}_thing.png")
    shutil.rmtree(flat / "masks")
    for path in list(flat.glob("*.txt")):
        frame = path.name.removesuffix("_pred.txt")
        lines = path.read_text().replace(f"masks/{frame}", f"{frame}_leftImg8bit")
        path.unlink()
        (flat / f"{frame}_leftImg8bit_pred.txt").write_text(lines.replace(".png", "_thing.png"))
    np.testing.assert_equal(judge(cfg, tmp_path), results)


def test_an_image_without_instances_need_not_be_listed(minis, tmp_path):
    cfg = config(INSTANCES, "instances")
    save(cfg, tmp_path, shift=0)
    path = folder_of(INSTANCES, tmp_path / "predictions") / "coco_instances_results.json"
    assert judge(cfg, tmp_path)["segm"]["AP"] == pytest.approx(100)
    unseen = DatasetCatalog.get(INSTANCES)[0]["image_id"]
    others = [r for r in json.loads(path.read_text()) if r["image_id"] != unseen]
    path.write_text(json.dumps(others))
    assert 0 < judge(cfg, tmp_path)["segm"]["AP"] < 90
    edit(path, list.clear)
    assert np.isnan(judge(cfg, tmp_path)["segm"]["AP"])


# ------------------------------------------------------------------------------ what is wrong
def change(path, number, **values):
    """Values of an entry in a JSON's list."""
    edit(path, lambda c: (c if isinstance(c, list) else c["annotations"])[number].update(values))


def drop(path, number, key):
    edit(path, lambda c: (c if isinstance(c, list) else c["annotations"])[number].pop(key))


def cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def draw(path, value, size=None, dtype=np.uint8):
    """A picture of one value, by default of the old one's size."""
    height, width = size or np.asarray(Image.open(path)).shape[:2]
    Image.fromarray(np.full((height, width, *np.shape(value)), value, dtype)).save(path)


def first(folder, pattern):
    return sorted(folder.rglob(pattern))[0]


JSON = "coco_instances_results.json"
RLE = {"size": [96, 128], "counts": "3o"}
FAULTS = [
    (INSTANCES, lambda f: cut(f / JSON), rf"{JSON}: not whole \(.*; write the predictions again"),
    (INSTANCES, lambda f: (f / JSON).write_text("{}"), f"{JSON}: no list; COCO's results"),
    (INSTANCES, lambda f: drop(f / JSON, 1, "score"), f"{JSON}: result 1 has no score; COCO's"),
    (
        INSTANCES,
        lambda f: change(f / JSON, 0, image_id=999),
        f"{JSON}: result 0 is of image 999, which {INSTANCES} does not have; judge it as",
    ),
    (
        INSTANCES,
        lambda f: change(f / JSON, 2, category_id=83),
        f"{JSON}: result 2 is of category 83, which {INSTANCES} does not have",
    ),
    (
        INSTANCES,
        lambda f: change(f / JSON, 0, segmentation=[[1, 1, 9, 9, 1, 9]]),
        f"{JSON}: a mask of .*jpg is none of run lengths; give COCO's",
    ),
    (
        INSTANCES,
        lambda f: change(f / JSON, 0, segmentation={**RLE, "size": [96, 127]}),
        r"a mask of .*jpg: its height and width are \(96, 127\), but those of .* \(96, 128\)",
    ),
    (
        INSTANCES,
        lambda f: change(f / JSON, 0, segmentation={**RLE, "counts": "o"}),
        r"a mask of .*jpg has broken run lengths \(they break off\); write",
    ),
    (
        INSTANCES,
        lambda f: change(f / JSON, 0, segmentation={**RLE, "counts": "53"}),
        "a mask of .*jpg has run lengths of another picture, of 8 pixels",
    ),
    (PANOPTIC, lambda f: cut(f / "panoptic.json"), "panoptic.json: not whole"),
    (
        PANOPTIC,
        lambda f: (f / "panoptic.json").write_text("[]"),
        "panoptic.json: no list of annotations in it",
    ),
    (
        PANOPTIC,
        lambda f: drop(f / "panoptic.json", 1, "file_name"),
        "panoptic.json: annotation 1 has no file_name",
    ),
    (
        PANOPTIC,
        lambda f: edit(f / "panoptic.json", lambda c: c["annotations"].pop()),
        "panoptic.json: no prediction of .*jpg; predict all images of the dataset",
    ),
    (PANOPTIC, lambda f: first(f, "*.png").unlink(), r"panoptic/\d+.png: no such file; write"),
    (PANOPTIC, lambda f: cut(first(f, "*.png")), r"panoptic/\d+.png: not a whole picture"),
    (PANOPTIC, lambda f: draw(first(f, "*.png"), 0), r"\d+.png: a picture of mode L; segment ids"),
    (
        PANOPTIC,
        lambda f: draw(first(f, "*.png"), (1, 0, 0), (9, 7)),
        r"\d+.png: its height and width are \(9, 7\), but those of .*jpg are \(96, 128\)",
    ),
    (
        PANOPTIC,
        lambda f: draw(first(f, "*.png"), (1, 2, 3)),
        r"\d+.png: it shows segments \[197121\] that .*panoptic.json does not list, which lists \[",
    ),
    (
        PANOPTIC,
        lambda f: change(f / "panoptic.json", 0, segments_info=[{"id": 5, "category_id": 12}]),
        rf"panoptic.json: segment 5 of \d+.png is of category 12, which {PANOPTIC} does not have",
    ),
    (
        SEMANTIC,
        lambda f: first(f, "*.png").unlink(),
        r"sem_seg/.*png: no prediction of .*jpg; predict all images of the dataset",
    ),
    (SEMANTIC, lambda f: cut(first(f, "*.png")), "sem_seg/.*png: not a whole picture"),
    (
        SEMANTIC,
        lambda f: draw(first(f, "*.png"), (1, 2, 3)),
        "png: a picture of mode RGB, but wanted",
    ),
    (
        SEMANTIC,
        lambda f: draw(first(f, "*.png"), 1, (96, 9)),
        r"png: its height and width are \(96, 9\), but those of .*jpg are \(96, 128\); predict at",
    ),
    (
        SEMANTIC,
        lambda f: draw(first(f, "*.png"), 150),
        rf"png: it has the value 150, but the classes of {SEMANTIC} are 0..149; predict one",
    ),
    (
        STREETS,
        lambda f: first(f, "*labelIds.png").unlink(),
        "cityscapes_sem_seg: no prediction of .*leftImg8bit.png; predict all images",
    ),
    (
        STREETS,
        lambda f: shutil.copy(first(f, "*labelIds.png"), f"{first(f, '*labelIds.png')}_2.png"),
        "labelIds.png and .*_2.png are both predictions of [a-z]+_0+_0+19; take one of them out",
    ),
    (
        STREETS,
        lambda f: draw(first(f, "*labelIds.png"), 5),
        "labelIds.png: it has the value 5, which is no label id that Cityscapes evaluates",
    ),
    (
        STREETS,
        lambda f: draw(first(f, "*labelIds.png"), 7, (5, 5)),
        r"labelIds.png: its height and width are \(5, 5\)",
    ),
    (
        STREETS,
        lambda f: first(f, "*.txt").unlink(),
        "cityscapes_instances: no prediction of .*leftImg8bit.png",
    ),
    (
        STREETS,
        lambda f: first(f, "*.txt").write_text("masks/a.png 24\n"),
        "pred.txt: the line 'masks/a.png 24' is not a mask's PNG, a label id and a score",
    ),
    (
        STREETS,
        lambda f: first(f, "*.txt").write_text("masks/a.png 4 0.5\n"),
        rf"pred.txt: an instance of the label 4 \(static\), which {STREETS} does not have",
    ),
    (
        STREETS,
        lambda f: first(f, "*.txt").write_text("masks/a.png 24 0.5\n"),
        "masks/a.png: no such file",
    ),
    (
        STREETS,
        lambda f: draw(first(f, "masks/*.png"), 1, (5, 5)),
        r"masks/.*png: its height and width are \(5, 5\), but those of .* are \(96, 192\)",
    ),
    (
        INSTANCES,
        lambda f: (f / JSON).unlink(),
        f"{INSTANCES}: no predictions of {INSTANCES}, which would be sem_seg, {JSON}, panoptic",
    ),
    (
        INSTANCES,
        lambda f: f.rename(f.with_name("other")),
        "predictions: no predictions of coco_2017_val, which would be",
    ),
]


@pytest.fixture(scope="session")
def _saved_once(tmp_path_factory):
    return tmp_path_factory.mktemp("saved")


@pytest.fixture
def saved(minis, _saved_once, tmp_path):
    """A function from a dataset to a copy of its predictions."""

    def copy(name):
        if not folder_of(name, _saved_once / "predictions").exists():
            outputs = {INSTANCES: ["instances"], PANOPTIC: ["panoptic_seg"], SEMANTIC: ["sem_seg"]}
            save(config(name, *outputs.get(name, ("sem_seg", "instances"))), _saved_once)
        source, target = (folder_of(name, p / "predictions") for p in (_saved_once, tmp_path))
        return shutil.copytree(source, target)

    return copy


@pytest.mark.parametrize("name, spoil, sentence", FAULTS)
def test_what_is_wrong_is_one_sentence(saved, name, spoil, sentence):
    folder = saved(name)
    spoil(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=sentence) as caught:
        judge(config(name), folder.parent)
    assert "\n" not in str(caught.value)
    assert caught.traceback[-1].path.name != "decoder.py"


def test_the_folder_of_one_among_several_datasets(saved):
    folder = saved(INSTANCES)
    cfg = config(INSTANCES)
    assert judge(cfg, folder).keys() == {"bbox", "segm"}
    cfg.DATASETS.TEST = (INSTANCES, SEMANTIC)
    with pytest.raises(FileNotFoundError, match=f"{INSTANCES}: no folder {INSTANCES} in it; name"):
        judge(cfg, folder)
