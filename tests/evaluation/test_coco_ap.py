"""AP for any numbering of classes, each image once. COCOEvaluator itself has contract tests."""

import json
import math

import coco_cases as cases
import numpy as np
import pycocotools.mask as mask_util
import pytest
from coco_cases import found, rectangle, truth_of
from detectron2.data import DatasetCatalog, MetadataCatalog

from mask2former.data.datasets.catalog import register
from mask2former.evaluation import InstanceSegEvaluator
from mask2former.evaluation.boundary import boundary

BIG, SMALL, LONG = rectangle(10, 10, 40, 40), rectangle(60, 60, 20, 20), rectangle(60, 5, 8, 50)
NAMES = {4: "cat", 11: "dog", 90: "bird"}

# Contiguous ids of the categories 4, 11, 90, as datasets have them.
NUMBERINGS = {
    "things first": {4: 0, 11: 1, 90: 2},
    "things among stuff": {4: 7, 11: 8, 90: 20},  # ADE20K, Cityscapes, Mapillary Vistas
    "another order": {4: 2, 11: 0, 90: 1},
    "not given": None,
}


@pytest.fixture
def dataset(tmp_path):
    """A function that registers annotations under a name that it gives."""
    name = f"ap_{tmp_path.name}"

    def make(annotations, numbering, categories=NAMES, num_images=2):
        path = cases.write_truth(tmp_path / "truth.json", annotations, categories, num_images)
        ids = {} if numbering is None else {"thing_dataset_id_to_contiguous_id": numbering}
        # As a panoptic dataset: names of things and stuff
        register(name, list, json_file=path, thing_classes=["x"] * 30, **ids)
        return InstanceSegEvaluator(name)

    yield make
    for catalog in (DatasetCatalog, MetadataCatalog):
        if name in catalog:
            catalog.remove(name)


def evaluate(evaluator, predictions, order=None):
    """`predictions` of the images 1, 2, ..; `order` is of images."""
    evaluator.reset()
    for image_id in order or range(1, len(predictions) + 1):
        output = {"instances": found(*predictions[image_id - 1])}
        evaluator.process([{"image_id": image_id}], [output])
    return evaluator.evaluate()


@pytest.mark.parametrize("which", NUMBERINGS)
def test_classes_are_those_of_the_file(dataset, which):
    numbering = NUMBERINGS[which]
    class_of = numbering or {c: c for c in NAMES}
    truth = [truth_of(1, 4, BIG), truth_of(1, 11, SMALL), truth_of(2, 90, LONG)]
    results = evaluate(
        dataset(truth, numbering),
        [
            # A cat that is right, a dog that is none; and 25 is stuff.
            [(class_of[4], 0.9, BIG), (class_of[11], 0.8, LONG), (25, 0.7, SMALL)],
            [(class_of[11], 0.3, BIG), (class_of[90], 0.2, LONG)],
        ],
    )
    expected = {"AP": 200 / 3, "AP50": 200 / 3, "AP-cat": 100, "AP-dog": 0, "AP-bird": 100}
    for task in ("segm", "bbox"):
        assert set(results[task]) == {*expected, "AP75", "APs", "APm", "APl"}
        for name, value in expected.items():
            assert results[task][name] == pytest.approx(value), (task, name)


def test_class_ids_may_come_with_the_dataset(dataset):
    """Loaders of COCO's format set them when they read the file."""
    evaluator = dataset([truth_of(1, 11, BIG)], None)
    MetadataCatalog.get(evaluator._dataset.name).thing_dataset_id_to_contiguous_id = {11: 5}
    assert evaluate(evaluator, [[(5, 0.9, BIG)]])["segm"]["AP-dog"] == pytest.approx(100)


def test_written_ids_are_those_of_the_file(dataset, tmp_path):
    name = dataset([truth_of(1, 4, BIG)], NUMBERINGS["another order"])._dataset.name
    evaluator = InstanceSegEvaluator(name, output_dir=str(tmp_path / "out"))
    evaluate(evaluator, [[(2, 0.5, BIG), (1, 0.25, SMALL), (3, 0.5, BIG)]])
    written = json.loads((tmp_path / "out" / "coco_instances_results.json").read_text())
    assert [(w["category_id"], w["score"]) for w in written] == [(4, 0.5), (90, 0.25)]


def test_an_image_that_was_predicted_twice_counts_once(dataset):
    annotations, predictions = cases.draw(4, category_id=lambda c: list(NAMES)[c])
    evaluator = dataset(annotations, NUMBERINGS["things among stuff"], num_images=4)
    classes = list(NUMBERINGS["things among stuff"].values())
    predictions = [[(classes[c], s, m) for c, s, m in image] for image in predictions]
    once = evaluate(evaluator, predictions)
    assert 5 < once["segm"]["AP"] < 95
    twice = evaluate(evaluator, predictions, order=[3, 1, 2, 4, 1, 3, 3])
    for task in ("segm", "bbox"):
        assert twice[task] == pytest.approx(once[task], nan_ok=True)


def test_stuff_alone_is_nothing_found(dataset):
    evaluator = dataset([truth_of(1, 4, BIG)], NUMBERINGS["things first"])
    evaluator._tasks = ("bbox", "segm")
    results = evaluate(evaluator, [[(25, 0.9, BIG)], []])
    assert all(math.isnan(results[task]["AP"]) for task in ("bbox", "segm"))


# ------------------------------------------------------------------------------------- Boundary AP
WIDTH = 3  # of a band: 2 % of the diagonal of 100 x 120 pixels


def band_by_hand(mask):
    """A mask's pixels from which a square of WIDTH pixels to each side leaves it or the image."""
    padded = np.pad(mask, WIDTH)
    return np.array(
        [
            [
                mask[y, x] and not padded[y : y + 2 * WIDTH + 1, x : x + 2 * WIDTH + 1].all()
                for x in range(mask.shape[1])
            ]
            for y in range(mask.shape[0])
        ]
    )


@pytest.mark.parametrize(
    "mask", [BIG, rectangle(0, 0, 30, 30), rectangle(50, 50, 4, 4), BIG | LONG]
)
def test_the_band_along_a_border(mask):
    rle = mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))
    assert (mask_util.decode(boundary(rle)) == band_by_hand(mask)).all()


def test_boundary_average_precision(dataset):
    """A mask moved by one of 40 pixels: IoU 0.95, but of bands of 3 pixels 0.71."""
    annotations = [truth_of(1, 4, BIG), truth_of(1, 11, SMALL)]
    name = dataset(annotations, NUMBERINGS["things among stuff"])._dataset.name
    evaluator = InstanceSegEvaluator(name, boundary=True)
    moved = np.roll(BIG, 1, 1)
    results = evaluate(evaluator, [[(7, 0.9, moved), (8, 0.8, SMALL)], []])
    bands = band_by_hand(BIG), band_by_hand(moved)
    iou = (bands[0] & bands[1]).sum() / (bands[0] | bands[1]).sum()
    assert 0.7 < iou < 0.75
    assert results["segm"]["AP-cat"] == pytest.approx(90 + 10 * (1560 / 1640 > 0.95))
    # Cats match at the thresholds 0.5 to 0.7, dogs at all.
    assert results["boundary"]["AP"] == pytest.approx((50 + 100) / 2)
    assert results["boundary"]["AP50"] == pytest.approx(100)
    assert results["boundary"]["AP75"] == pytest.approx(50)
    assert evaluate(evaluator, [[], []])["boundary"].keys() == results["boundary"].keys()


def test_a_dataset_without_classes_or_file_is_one_sentence(dataset, tmp_path):
    with pytest.raises(ValueError, match=r"truth.json: no categories in it"):
        dataset([truth_of(1, 4, BIG)], None, categories={})
    name = f"ap_{tmp_path.name}"
    (tmp_path / "truth.json").unlink()
    with pytest.raises(FileNotFoundError, match=f"truth.json: no such file; {name}"):
        InstanceSegEvaluator(name)


def test_masks_of_another_size_are_not_the_object(dataset):
    """IoU of a fifth of the object more: 1600 / 1920."""
    evaluator = dataset([truth_of(1, 4, BIG)], NUMBERINGS["things first"])
    larger = rectangle(10, 10, 40, 48)
    results = evaluate(evaluator, [[(0, 0.9, larger)]])
    assert results["segm"]["AP"] == pytest.approx(
        100 * np.mean(np.arange(0.5, 1, 0.05) < 1600 / 1920)
    )


@pytest.mark.parametrize("counts", [[2**40], [100, 5], [10_000, -5, 5], []])
def test_run_lengths_of_another_size_never_reach_pycocotools(counts, tmp_path):
    annotation = {
        "category_id": 0,
        "bbox": [0, 0, 5, 5],
        "bbox_mode": 1,
        "iscrowd": 1,
        "segmentation": {"size": [100, 100], "counts": counts},
    }
    sample = {"file_name": "a.jpg", "image_id": 1, "height": 100, "width": 100}
    name = f"broken_{tmp_path.name}"
    register(name, lambda: [{**sample, "annotations": [annotation]}], thing_classes=["cat"])
    with pytest.raises(ValueError, match=r"a\.jpg: run lengths of an object cover .*100x100"):
        InstanceSegEvaluator(name)
