"""Both judges of AP give the numbers of pycocotools, which is driven here as its manual says."""

import contextlib
import copy
import io
import logging
import math
from importlib.util import find_spec

import coco_cases as cases
import numpy as np
import pycocotools.mask
import pytest
import torch
from coco_cases import SIZE, box_of, found, rectangle, truth_of
from detectron2.data import MetadataCatalog
from hypothesis import given, settings
from hypothesis import strategies as st
from peak_memory import peak_memory
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mask2former.evaluation import InstanceSegEvaluator, coco_ap
from mask2former.evaluation.coco_ap import METRICS, average_precision, find_judge
from mask2former.layers.packed_masks import PackedMasks

TASKS = {"bbox": "bbox", "segm": "segmentation"}
NAMES = {1: "cat", 2: "dog", 7: "bird"}
BIG, SMALL = rectangle(10, 10, 40, 40), rectangle(60, 60, 20, 20)
EMPTY, DOT = rectangle(0, 0, 0, 0), rectangle(99, 119, 1, 1)
FULL = rectangle(0, 0, *SIZE)


def truth_for(annotations, num_images=2, names=NAMES):
    return {
        "images": [{"id": i + 1, "height": SIZE[0], "width": SIZE[1]} for i in range(num_images)],
        "categories": [{"id": i, "name": name} for i, name in names.items()],
        "annotations": [{**a, "id": number} for number, a in enumerate(annotations, 1)],
    }


def result_of(image_id, category_id, score, mask):
    rle = pycocotools.mask.encode(np.asfortranarray(mask, np.uint8))
    return {
        "image_id": image_id,
        "category_id": category_id,
        "score": score,
        "segmentation": rle,
        "bbox": box_of(mask) if mask.any() else [0, 0, 0, 0],
    }


def by_pycocotools(truth, results, task):
    dataset = COCO()
    with contextlib.redirect_stdout(io.StringIO()):
        dataset.dataset = copy.deepcopy(truth)
        dataset.createIndex()
        others = set(TASKS.values()) - {TASKS[task]}
        results = [{k: v for k, v in r.items() if k not in others} for r in results]
        judge = COCOeval(dataset, dataset.loadRes(results), task)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    metrics = dict(zip(METRICS, judge.stats.tolist()))
    names = {category["id"]: category["name"] for category in truth["categories"]}
    for i, category in enumerate(judge.params.catIds if len(names) > 1 else ()):
        values = judge.eval["precision"][:, :, i, 0, -1]
        metrics[f"AP-{names[category]}"] = values[values > -1].mean() if values.max() > -1 else -1
    return {k: 100 * v if v > -1 else math.nan for k, v in metrics.items()}


def check(truth, results):
    """Gives the metrics of masks."""
    before = copy.deepcopy((truth, results))
    for task in TASKS:
        expected = by_pycocotools(truth, results, task)
        for fast in (True, False):
            metrics = average_precision(truth, results, task, judge=find_judge(fast))
            assert list(metrics) == list(expected)
            assert metrics == pytest.approx(expected, rel=1e-12, nan_ok=True), (task, fast)
    assert (truth, results) == before  # nothing is written into what others have
    return metrics


POLYGONS = {**truth_of(1, 1, BIG), "segmentation": [[10, 10, 50, 10, 50.5, 49.7, 10, 50]]}
RUNS = {**truth_of(1, 1, FULL), "segmentation": {"size": SIZE, "counts": [0, SIZE[0] * SIZE[1]]}}

# annotations, results
CASES = {
    "perfect": (
        [truth_of(1, 1, BIG), truth_of(1, 2, SMALL), truth_of(2, 7, FULL)],
        [result_of(1, 1, 0.5, BIG), result_of(1, 2, 0.5, SMALL), result_of(2, 7, 0.1, FULL)],
    ),
    "single pixels": (
        [truth_of(1, 1, DOT), truth_of(2, 1, rectangle(0, 0, 1, 1))],
        [result_of(1, 1, 0.5, DOT), result_of(2, 1, 0.5, rectangle(0, 1, 1, 1))],
    ),
    "empty masks": (
        [truth_of(1, 1, BIG), {**truth_of(1, 2, DOT), **result_of(1, 2, 0, EMPTY), "area": 0}],
        [result_of(1, 1, 0.9, EMPTY), result_of(1, 1, 0.5, BIG), result_of(1, 2, 0.5, EMPTY)],
    ),
    "crowds excuse what lies in them, and hide nothing else": (
        [truth_of(1, 1, FULL, iscrowd=1), truth_of(1, 1, SMALL), truth_of(2, 1, BIG, iscrowd=1)],
        [result_of(1, 1, 0.9, BIG), result_of(1, 1, 0.8, SMALL), result_of(2, 1, 0.7, SMALL)],
    ),
    "only crowds": ([truth_of(1, 1, BIG, iscrowd=1)], [result_of(1, 1, 0.9, BIG)]),
    "equal scores": (
        [truth_of(1, 1, BIG), truth_of(2, 1, SMALL)],
        [result_of(i, 1, 0.5, mask) for i in (2, 1) for mask in (SMALL, BIG, FULL)],
    ),
    "more detections than count": (
        [truth_of(1, 1, BIG), truth_of(1, 2, SMALL)],
        [result_of(1, c, 1 - i / 200, FULL) for c in (1, 2) for i in range(99 + c)]
        + [result_of(1, 1, 0.1, BIG), result_of(1, 2, 0.1, SMALL)],
    ),
    "polygons, and run lengths that are not compressed": (
        [POLYGONS, {**RUNS, "image_id": 2}],
        [result_of(1, 1, 0.5, BIG), result_of(2, 1, 0.6, FULL)],
    ),
    "nothing is annotated": ([], [result_of(1, 1, 0.5, BIG)]),
    "another image's, another class's": (
        [truth_of(1, 1, BIG), truth_of(2, 2, SMALL)],
        [result_of(2, 1, 0.5, BIG), result_of(2, 1, 0.5, SMALL)],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_numbers_are_those_of_pycocotools(case):
    annotations, results = CASES[case]
    metrics = check(truth_for(annotations), results)
    assert case != "perfect" or metrics["AP"] == pytest.approx(100)


# Of images, by their numbers. Text is ordered as text.
IDS = {
    "from 0": lambda i: i - 1,
    "large": lambda i: 10**12 - 7 * i,
    "text": lambda i: f"{i % 7}/{i}",
}


@settings(deadline=None, derandomize=True, max_examples=25)
@given(
    seed=st.integers(0, 2**16),
    num_images=st.integers(1, 12),
    num_classes=st.integers(1, 3),
    digits=st.sampled_from([1, 3]),  # few of them: many scores are equal
    ids=st.sampled_from(sorted(IDS)),
)
def test_drawn_objects(seed, num_images, num_classes, digits, ids):
    categories = list(NAMES)[:num_classes]
    annotations, predictions = cases.draw(
        seed, num_images, num_classes, category_id=lambda c: categories[c]
    )
    truth = truth_for(annotations, num_images, {c: NAMES[c] for c in categories})
    results = [
        result_of(image_id, categories[c], round(score, digits), mask)
        for image_id, image in enumerate(predictions, 1)
        for c, score, mask in image
    ]
    for part in (truth["images"], truth["annotations"], results):
        key = "id" if part is truth["images"] else "image_id"
        for entry in part:
            entry[key] = IDS[ids](entry[key])
    if results:
        check(truth, results)
    else:
        assert all(map(math.isnan, average_precision(truth, results, "segm").values()))


@pytest.mark.parametrize("fast", [True, False])
def test_what_the_truth_need_not_have(fast):
    def ap(truth, results, **options):
        return average_precision(truth, results, "segm", judge=find_judge(fast), **options)

    annotations = [truth_of(1, 1, BIG), truth_of(1, 1, SMALL)]
    results = [result_of(1, 1, 0.9, BIG), result_of(1, 1, 0.8, SMALL)]
    truth = truth_for(annotations)
    # Ids are those of lists, or forgotten; images and categories were taken out of the file.
    for number, annotation in enumerate(truth["annotations"]):
        annotation.update(id=number)
        del annotation["iscrowd"]
    truth["annotations"] += [truth_of(99, 1, BIG) | {"id": 0}, truth_of(1, 99, BIG)]
    assert ap(truth, results)["AP"] == pytest.approx(100)
    assert ap(truth, [*results, result_of(1, 99, 0.95, FULL)])["AP"] == pytest.approx(100)
    assert all(map(math.isnan, ap(truth, [result_of(1, 99, 0.95, FULL)]).values()))
    # What is no number is the lowest score.
    worst = {**results[0], "score": math.nan}
    assert ap(truth, [worst, result_of(1, 1, 0.1, FULL), results[1]]) == pytest.approx(
        ap(truth, [{**worst, "score": 0.01}, result_of(1, 1, 0.1, FULL), results[1]]), nan_ok=True
    )
    # Parts of the images and of the detections.
    truth["annotations"].append(truth_of(2, 1, BIG))
    assert ap(truth, results)["AP"] < 70
    assert ap(truth, results, img_ids=[1])["AP"] == pytest.approx(100)
    assert ap(truth, results, img_ids=[1], max_detections=1)["AP"] == pytest.approx(5100 / 101)
    with pytest.raises(ValueError, match="a result is for the image 3, which the ground truth"):
        ap(truth, [result_of(3, 1, 0.5, BIG)])
    del truth["annotations"][1]["segmentation"]
    with pytest.raises(
        ValueError, match="the annotation 1 of the ground truth has no segmentation"
    ):
        ap(truth, results)


def test_who_judges(monkeypatch, caplog):
    assert find_judge(fast=True).name == ("hotcoco" if find_spec("hotcoco") else "pycocotools")
    assert find_judge(fast=False).evaluation is COCOeval
    monkeypatch.setattr(coco_ap, "hotcoco", None)
    coco_ap._say_that_it_takes_longer.cache_clear()
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            assert find_judge(fast=True).evaluation is COCOeval
    assert caplog.text.count("judged by pycocotools, and takes longer") == 1


# --------------------------------------------------------------------------------- the evaluator
@pytest.fixture
def name(tmp_path):
    name = f"judged_{tmp_path.name}"
    yield MetadataCatalog.get(name).set(thing_dataset_id_to_contiguous_id={1: 0, 2: 1, 7: 2}).name
    MetadataCatalog.remove(name)


@pytest.mark.parametrize("fast", [True, False])
def test_one_process_or_several(name, monkeypatch, fast):
    annotations, predictions = cases.draw(5, 5, category_id=lambda c: list(NAMES)[c])
    truth = truth_for(annotations, 5)

    def evaluator_of(*numbers):
        evaluator = InstanceSegEvaluator(name, truth=truth, use_fast_impl=fast)
        for i in numbers:
            output = {"instances": found(*predictions[i])}
            evaluator.process([{"image_id": i + 1}], [output])
        return evaluator

    whole = evaluator_of(0, 1, 2, 3, 4).evaluate()
    results = [
        result_of(i, list(NAMES)[c], float(np.float32(score)), mask)
        for i, image in enumerate(predictions, 1)
        for c, score, mask in image
    ]
    for task in TASKS:
        expected = by_pycocotools(truth, results, task)
        assert whole[task] == pytest.approx(expected, rel=1e-12, nan_ok=True)
    assert 5 < whole["segm"]["AP"] < 95

    # Shares are uneven, one has nothing, and images were predicted twice.
    parts = [evaluator_of(*share)._kept for share in ([3, 1, 3], [], [0, 2, 3, 4])]
    monkeypatch.setattr("detectron2.utils.comm.gather", lambda data: parts)
    joined = evaluator_of(0).evaluate()
    assert list(joined) == list(whole) == ["bbox", "segm"]
    for task in TASKS:
        assert joined[task] == pytest.approx(whole[task], rel=1e-12, nan_ok=True)
    monkeypatch.setattr("detectron2.utils.comm.is_main_process", lambda: False)
    assert evaluator_of(0).evaluate() is None


@pytest.mark.parametrize("pack", [PackedMasks.pack, lambda masks: masks], ids=["packed", "bool"])
def test_masks_are_read_a_few_at_a_time(name, pack):
    """And some hundred bytes of each are kept."""
    masks = torch.zeros(60, 512, 512, dtype=torch.bool)
    for i, mask in enumerate(masks):
        mask[i : 300 + i, 2 * i : 200 + 3 * i] = True
    image = found(*[(i % 4, 0.5, BIG) for i in range(60)])  # a quarter is stuff
    instances = type(image)((512, 512), **{**image.get_fields(), "pred_masks": pack(masks)})
    truth = truth_for([])
    truth["images"][0].update(height=512, width=512)
    evaluator = InstanceSegEvaluator(name, truth=truth)
    _, peak = peak_memory(lambda: evaluator.process([{"image_id": 1}], [{"instances": instances}]))
    assert peak < masks.nbytes / 3
    kept, _ = evaluator._kept[1]
    assert len(kept.counts) == 45 and set(kept.categories.tolist()) == {0, 1, 2}
    size = sum(map(len, kept.counts)) + kept.boxes.nbytes + kept.scores.nbytes
    assert size / 45 < 1000
    assert kept.counts[3] == result_of(1, 1, 0, masks[4].numpy())["segmentation"]["counts"]


def test_official_masks_are_numbers(name):
    """The official Mask2Former has them as float."""
    instances = found((0, 0.9, BIG), (1, 0.8, SMALL))
    truth = truth_for([truth_of(1, 1, BIG), truth_of(1, 2, SMALL)])
    for dtype in (torch.float32, torch.float16, torch.uint8):
        evaluator = InstanceSegEvaluator(name, truth=truth)
        instances.pred_masks = instances.pred_masks.to(dtype)
        evaluator.process([{"image_id": 1}], [{"instances": instances}])
        assert evaluator.evaluate()["segm"]["AP"] == pytest.approx(100)


@pytest.mark.parametrize(
    ("truth", "said"),
    [
        ([], "no images in it"),
        ({"images": []}, "no categories in it"),
        (
            {"images": [], "categories": [{"id": 1, "name": "cat"}], "annotations": [{"id": 5}]},
            "the annotation 5 has no area",
        ),
    ],
)
def test_what_is_no_truth_is_one_sentence(name, truth, said):
    with pytest.raises(ValueError, match=f"{name}: {said}"):
        InstanceSegEvaluator(name, truth=truth)


def test_other_sizes_and_tasks_are_one_sentence(name):
    evaluator = InstanceSegEvaluator(name, truth=truth_for([truth_of(1, 1, BIG)]))
    evaluator._truth["images"][0]["height"] = 7
    with pytest.raises(ValueError, match=f"a.jpg: .* 100x120 pixels, but {name} says 7x120"):
        evaluator.process(
            [{"image_id": 1, "file_name": "a.jpg"}], [{"instances": found((0, 0.9, BIG))}]
        )
    with pytest.raises(ValueError, match="no task 'keypoints'; choose from bbox, segm"):
        InstanceSegEvaluator(name, ["segm", "keypoints"], truth=truth_for([]))
