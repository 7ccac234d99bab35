"""Our comparing gives the numbers of cityscapesscripts' own, whoever compares which image."""

import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from cityscapesscripts.helpers.labels import name2label
from detectron2.data import MetadataCatalog
from detectron2.structures import Instances
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mask2former.evaluation import CityscapesInstanceEvaluator, reference
from mask2former.evaluation.cityscapes_instances import (
    THINGS,
    average_precision,
    judge,
    regions_of,
)
from mask2former.layers.packed_masks import PackedMasks

NAME = "drawn"
SIZE = (48, 64)
ROAD, VOID = 7, 0
# What ground truth has: things, groups, stuff, void, and instances that nobody evaluates.
KINDS = [*(1000 * name2label[name].id for name in THINGS), 26, 24, ROAD, 11, VOID, 4, 29000]


def rectangle(y, x, height, width, size=SIZE):
    mask = np.zeros(size, bool)
    mask[y : y + height, x : x + width] = True
    return mask


def draw_truth(generator, size=SIZE):
    ids = np.zeros(size, np.uint16)
    for number in range(14):
        kind = KINDS[generator.integers(len(KINDS))]
        y, x = generator.integers(0, size[0] - 12), generator.integers(0, size[1] - 12)
        height, width = generator.integers(8, 30, 2)
        ids[y : y + height, x : x + width] = kind + number if kind >= 1000 else kind
    ids[-1] = ROAD
    return ids


def draw_predictions(generator, ids):
    """Moved instances, some of them twice or of another class, and some that are nothing."""
    result = []
    for instance in np.unique(ids[ids >= 1000]).tolist():
        label = instance // 1000
        for _ in range(generator.integers(0, 3)):
            mask = np.roll(ids == instance, generator.integers(-2, 3, 2), (0, 1))
            names = [n for n in THINGS if name2label[n].id == label]
            name = names[0] if names and generator.random() < 0.85 else generator.choice(THINGS)
            result.append((str(name), float(np.float32(generator.random())), mask))
    noise = generator.random(ids.shape) < 0.1
    # The script fails for a class of which no prediction counts; one on the road does.
    road = [(name, 0.0625, rectangle(ids.shape[0] - 1, 3, 1, 9, ids.shape)) for name in THINGS]
    return [*result, ("car", 0.125, noise), ("bus", 0.5, np.zeros(ids.shape, bool)), *road]


def instances_of(predictions, class_names=THINGS, size=SIZE):
    result = Instances(size)
    result.pred_classes = torch.tensor([class_names.index(n) for n, _, _ in predictions]).long()
    result.scores = torch.tensor([score for _, score, _ in predictions])
    masks = np.array([mask for _, _, mask in predictions], bool).reshape(-1, *size)
    result.pred_masks = torch.from_numpy(masks)
    return result


def write(folder, truths, class_names=THINGS):
    """Ground truth as a dataset; the dicts of its images."""
    city = folder / "gtFine" / "val" / "bonn"
    city.mkdir(parents=True, exist_ok=True)
    for i, ids in enumerate(truths):
        Image.fromarray(ids).save(city / f"bonn_{i:06}_000019_gtFine_instanceIds.png")
    describe(city.parent, class_names)
    image = "leftImg8bit/val/bonn/bonn_{:06}_000019_leftImg8bit.png"
    return [{"file_name": image.format(i)} for i in range(len(truths))]


def describe(gt_dir, class_names):
    if NAME in MetadataCatalog:
        MetadataCatalog.remove(NAME)
    MetadataCatalog.get(NAME).set(gt_dir=str(gt_dir), thing_classes=list(class_names))


@pytest.fixture(autouse=True)
def _forget():
    yield
    if NAME in MetadataCatalog:
        MetadataCatalog.remove(NAME)


def evaluate(samples, predictions, kind=CityscapesInstanceEvaluator):
    """
    Args:
        predictions: Instances of each image.
    """
    evaluator = kind(NAME)
    evaluator.reset()
    for sample, instances in zip(samples, predictions):
        evaluator.process([sample], [{"instances": instances}])
    return evaluator.evaluate()["segm"]


def packed(instances):
    fields = {**instances.get_fields(), "pred_masks": PackedMasks.pack(instances.pred_masks)}
    return Instances(instances.image_size, **fields)


def as_numbers(instances):
    """As the official Mask2Former has masks."""
    fields = {**instances.get_fields(), "pred_masks": instances.pred_masks.float()}
    return Instances(instances.image_size, **fields)


def check_alike(truths, predictions):
    """Ours with all forms of masks, and cityscapesscripts', which reads files; the metrics."""
    found = [instances_of(p, size=ids.shape) for p, ids in zip(predictions, truths)]
    with tempfile.TemporaryDirectory() as folder:
        samples = write(Path(folder), truths)
        metrics = evaluate(samples, found)
        for other_form in (packed, as_numbers):
            np.testing.assert_equal(evaluate(samples, map(other_form, found)), metrics)
        expected = evaluate(samples, found, reference.CityscapesInstanceEvaluator)
    assert list(metrics) == list(expected)
    assert metrics == pytest.approx(expected, rel=1e-9, abs=1e-9, nan_ok=True)
    return metrics


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 4),
    st.sampled_from([(48, 64), (40, 61)]),
    st.booleans(),
)
@settings(max_examples=12, deadline=None, derandomize=True)
def test_any_images(seed, num_images, size, has_ties):
    generator = np.random.default_rng(seed)
    truths = [draw_truth(generator, size) for _ in range(num_images)]
    predictions = [draw_predictions(generator, ids) for ids in truths]
    if has_ties:
        predictions = [[(n, round(s, 1), m) for n, s, m in found] for found in predictions]
    check_alike(truths, predictions)


LEFT, RIGHT = rectangle(0, 0, 20, 20), rectangle(0, 30, 20, 20)
NOTHING, DOT = rectangle(0, 0, 0, 0), rectangle(33, 44, 1, 1)


def paint(regions, background=ROAD):
    ids = np.full(SIZE, background, np.uint16)
    for instance_id, mask in regions.items():
        ids[mask] = instance_id
    return ids


@pytest.mark.parametrize(
    "predictions, truth, expected",
    [
        ([(0.9, LEFT), (0.8, RIGHT)], {26001: LEFT, 26002: RIGHT}, (100, 100)),
        # Half of the recall; the curve's other half counts nothing.
        ([(0.9, LEFT)], {26001: LEFT, 26002: RIGHT}, (50, 50)),
        # IoU 0.6: above the thresholds 0.5 and 0.55 of ten, as it has to exceed them.
        ([(0.9, rectangle(0, 0, 12, 20))], {26001: LEFT}, (20, 100)),
        # What lies in a group of cars, or where nothing is evaluated, is no mistake.
        ([(0.9, RIGHT), (0.8, LEFT)], {26001: LEFT, 26: RIGHT}, (100, 100)),
        ([(0.9, RIGHT), (0.8, LEFT)], {26001: LEFT, 4: RIGHT}, (100, 100)),
        # On the road it is one: precision 1/2 at full recall, by the trapezoid of the script.
        ([(0.9, RIGHT), (0.8, LEFT)], {26001: LEFT}, (25, 25)),
        # Of two predictions of one object the worse one is a mistake, be they as good.
        ([(0.8, LEFT), (0.9, LEFT)], {26001: LEFT}, (100, 100)),
        ([(0.9, LEFT), (0.9, LEFT)], {26001: LEFT}, (75, 75)),
        # Too small to be evaluated
        ([(0.9, LEFT)], {26001: LEFT, 26002: rectangle(30, 30, 9, 11)}, (100, 100)),
        # Half of it lies in a group of 60 pixels, which counts twice as it is small as well.
        (
            [(0.9, rectangle(30, 30, 10, 12)), (0.8, LEFT)],
            {26001: LEFT, 26: rectangle(30, 30, 5, 12)},
            (100, 100),
        ),
        ([(0.9, DOT), (0.8, LEFT)], {26001: LEFT, 26002: DOT}, (100, 100)),
        ([(0.9, NOTHING), (0.8, LEFT)], {26001: LEFT}, (100, 100)),
        ([(0.9, NOTHING)], {26001: LEFT}, (0, 0)),
        ([(0.9, LEFT)], {}, (math.nan, math.nan)),
    ],
)
def test_cases_by_hand(predictions, truth, expected):
    cars = [("car", score, mask) for score, mask in predictions]
    found = check_alike([paint(truth)], [cars])
    assert (found["AP-car"], found["AP50-car"]) == pytest.approx(expected, nan_ok=True)


def test_perfect_predictions_score_100():
    generator = np.random.default_rng(5)
    truths = [draw_truth(generator) for _ in range(3)]
    ids_of = {name2label[n].id: n for n in THINGS}
    predictions = [
        [(ids_of[i // 1000], 1.0, t == i) for i in np.unique(t).tolist() if i // 1000 in ids_of]
        for t in truths
    ]
    found = check_alike(truths, predictions)
    assert found["AP"] == found["AP50"] == 100


def test_images_of_void_and_without_predictions():
    void = paint({}, VOID)
    found = check_alike([void, void], [[("car", 0.5, LEFT)], []])
    assert all(map(math.isnan, found.values()))
    found = check_alike([void, paint({26001: LEFT, 24: RIGHT})], [[("person", 0.5, LEFT)], []])
    assert found["AP-car"] == found["AP"] == 0 and math.isnan(found["AP-person"])


# ---------------------------------------------------------------------------------- several images
@pytest.fixture
def dataset(tmp_path):
    """The dicts of its images, and what is predicted."""
    generator = np.random.default_rng(5)
    truths = [draw_truth(generator) for _ in range(4)]
    predictions = [draw_predictions(generator, ids) for ids in truths]
    return write(tmp_path, truths), predictions


def test_order_of_images_and_number_of_processes_change_nothing(dataset, monkeypatch):
    samples, predictions = dataset
    found = [instances_of(p) for p in predictions]
    whole = evaluate(samples, found)
    assert 10 < whole["AP"] < whole["AP50"] < 90
    parts = []
    # Shares are uneven, one has nothing, and one image was predicted by two.
    for chosen in ([3, 1], [], [0, 2, 3]):
        evaluator = CityscapesInstanceEvaluator(NAME)
        for i in chosen:
            evaluator.process([samples[i]], [{"instances": found[i]}])
        parts.append(evaluator.judged)
    monkeypatch.setattr("detectron2.utils.comm.gather", lambda data: parts)
    together = CityscapesInstanceEvaluator(NAME).evaluate()["segm"]
    assert together == pytest.approx(whole, rel=1e-12, nan_ok=True)


def test_classes_follow_the_metadata(dataset):
    """A panoptic model predicts all 19 classes; of these the eight things count."""
    samples, predictions = dataset
    expected = evaluate(samples, [instances_of(p) for p in predictions])
    names = ["road", *reversed(THINGS), "license plate"]
    describe(MetadataCatalog.get(NAME).gt_dir, names)
    others = [(name, 0.99, np.ones(SIZE, bool)) for name in ("road", "license plate")]
    found = evaluate(samples, [instances_of([*p, *others], names) for p in predictions])
    assert found == pytest.approx(expected, nan_ok=True)


def test_what_is_kept_of_an_image_is_small(dataset):
    samples, predictions = dataset
    evaluator = CityscapesInstanceEvaluator(NAME)
    evaluator.process(samples[:1], [{"instances": instances_of(predictions[0])}])
    (judged,) = evaluator.judged.values()
    assert sum(array.nbytes for array in judged) <= 40 * len(predictions[0]) + 64


def test_without_images_nothing_is_known():
    assert all(map(math.isnan, average_precision([]).values()))
    nothing = np.zeros(0, np.int64), np.zeros(0), torch.zeros(0, *SIZE, dtype=torch.bool)
    void = judge(*nothing, regions_of(np.zeros(SIZE, np.uint16)))
    assert all(map(math.isnan, average_precision([void, void]).values()))


def test_mistakes_are_one_sentence(dataset):
    samples, _ = dataset
    evaluator = CityscapesInstanceEvaluator(NAME)

    def process(instances, sample=samples[1]):
        evaluator.process([sample], [{"instances": instances}])

    with pytest.raises(FileNotFoundError, match="ulm_000000_000019_gtFine_instanceIds"):
        process(instances_of([]), {"file_name": "val/ulm/ulm_000000_000019_leftImg8bit.png"})
    with pytest.raises(ValueError, match=r"bonn_000001.*\(48, 64\) .* masks of shape \(3, 4\)"):
        process(instances_of([], size=(3, 4)))
    unknown = instances_of([("car", 0.5, LEFT)])
    unknown.pred_classes += len(THINGS)
    with pytest.raises(ValueError, match=r"bonn_000001.*: a prediction of class 10, .* has 8"):
        process(unknown)
    path = Path(evaluator.gt_dir) / "bonn" / "bonn_000001_000019_gtFine_instanceIds.png"
    Image.fromarray(np.full(SIZE, 255, np.uint8)).save(path)
    with pytest.raises(ValueError, match=r"bonn_000001.* ids up to 255"):
        process(instances_of([]))
    describe("", ["car", "tank"])
    for kind in (CityscapesInstanceEvaluator, reference.CityscapesInstanceEvaluator):
        with pytest.raises(ValueError, match=f"{NAME}: thing_classes has 'tank'"):
            kind(NAME)
