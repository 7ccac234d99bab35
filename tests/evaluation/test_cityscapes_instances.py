"""Our comparing gives the numbers of cityscapesscripts' own, whoever compares which image."""

import copy
import math
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from cityscapesscripts.evaluation import evalInstanceLevelSemanticLabeling as official
from cityscapesscripts.helpers.labels import name2label
from detectron2.data import MetadataCatalog
from detectron2.structures import Instances
from PIL import Image

from mask2former.evaluation import CityscapesInstanceEvaluator
from mask2former.evaluation.cityscapes_instances import (
    THINGS,
    average_precision,
    judge,
    regions_of,
)

SIZE = (48, 64)
# What ground truth has: things, groups, stuff, void, and instances that nobody evaluates.
KINDS = [*(1000 * name2label[name].id for name in THINGS), 26, 24, 7, 11, 0, 4, 29000]


def draw_truth(generator):
    ids = np.zeros(SIZE, np.uint16)
    for number in range(14):
        kind = KINDS[generator.integers(len(KINDS))]
        y, x = generator.integers(0, SIZE[0] - 12), generator.integers(0, SIZE[1] - 12)
        height, width = generator.integers(8, 30, 2)
        ids[y : y + height, x : x + width] = kind + number if kind >= 1000 else kind
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
    noise = generator.random(SIZE) < 0.1
    return [*result, ("car", 0.125, noise), ("bus", 0.5, np.zeros(SIZE, bool))]


def instances_of(predictions, class_names=THINGS):
    result = Instances(SIZE)
    result.pred_classes = torch.tensor([class_names.index(n) for n, _, _ in predictions]).long()
    result.scores = torch.tensor([score for _, score, _ in predictions])
    masks = np.array([mask for _, _, mask in predictions]).reshape(-1, *SIZE)
    result.pred_masks = torch.from_numpy(masks)
    return result


@pytest.fixture
def dataset(tmp_path):
    """A dataset's name, its images, ground truth and predictions."""
    generator = np.random.default_rng(5)
    city = tmp_path / "gtFine" / "val" / "bonn"
    city.mkdir(parents=True)
    samples, truths, predictions = [], [], []
    for i in range(4):
        truths.append(draw_truth(generator))
        Image.fromarray(truths[-1]).save(city / f"bonn_{i:06}_000019_gtFine_instanceIds.png")
        predictions.append(draw_predictions(generator, truths[-1]))
        image = f"leftImg8bit/val/bonn/bonn_{i:06}_000019_leftImg8bit.png"
        samples.append({"file_name": image})
    name = f"instances_{tmp_path.name}"
    MetadataCatalog.get(name).set(gt_dir=str(city.parent), thing_classes=THINGS)
    yield name, samples, truths, predictions
    MetadataCatalog.remove(name)


def evaluate(name, samples, predictions):
    evaluator = CityscapesInstanceEvaluator(name)
    for sample, instances in zip(samples, predictions):
        evaluator.process([sample], [{"instances": instances_of(instances)}])
    return evaluator.evaluate()["segm"]


def official_results(folder, truths, predictions, monkeypatch):
    """By evaluateImgLists, which reads files."""
    monkeypatch.setattr(official, "writeDict2JSON", lambda *_: None)  # into the current directory
    if not hasattr(np, "in1d"):  # dropped in numpy 2.4
        monkeypatch.setattr(official, "np", types.SimpleNamespace(**vars(np), in1d=np.isin))
    args = copy.copy(official.args)
    args.quiet, args.JSONOutput = True, False
    args.predictionPath, args.gtInstancesFile = str(folder), str(folder / "gt.json")
    truth_files, files = [], []
    for i, (ids, instances) in enumerate(zip(truths, predictions)):
        truth_files.append(str(folder / f"{i}_truth.png"))
        Image.fromarray(ids).save(truth_files[-1])
        lines = []
        for number, (name, score, mask) in enumerate(instances):
            Image.fromarray(mask.astype(np.uint8)).save(folder / f"{i}_{number}.png")
            lines.append(f"{i}_{number}.png {name2label[name].id} {score}\n")
        files.append(str(folder / f"{i}.txt"))
        (folder / f"{i}.txt").write_text("".join(lines))
    return official.evaluateImgLists(files, truth_files, args)["averages"]


def test_scores_are_those_of_cityscapesscripts(dataset, tmp_path, monkeypatch):
    name, samples, truths, predictions = dataset
    found = evaluate(name, samples, predictions)
    expected = official_results(tmp_path, truths, predictions, monkeypatch)
    assert found["AP"] == pytest.approx(100 * expected["allAp"], rel=1e-12)
    assert found["AP50"] == pytest.approx(100 * expected["allAp50%"], rel=1e-12)
    for thing in THINGS:
        for key, theirs in ((f"AP-{thing}", "ap"), (f"AP50-{thing}", "ap50%")):
            value = 100 * expected["classes"][thing][theirs]
            assert found[key] == pytest.approx(value, rel=1e-12, nan_ok=True), key
    assert 10 < found["AP"] < found["AP50"] < 90


def test_order_of_images_and_number_of_processes_change_nothing(dataset, monkeypatch):
    name, samples, _, predictions = dataset
    whole = evaluate(name, samples, predictions)
    parts = []
    # Shares are uneven, one has nothing, and one image was predicted by two.
    for chosen in ([3, 1], [], [0, 2, 3]):
        evaluator = CityscapesInstanceEvaluator(name)
        for i in chosen:
            evaluator.process([samples[i]], [{"instances": instances_of(predictions[i])}])
        parts.append(evaluator.judged)
    monkeypatch.setattr("detectron2.utils.comm.gather", lambda data: parts)
    found = CityscapesInstanceEvaluator(name).evaluate()["segm"]
    assert found == pytest.approx(whole, rel=1e-12, nan_ok=True)


def car(*predictions, truth):
    """AP and AP50 of cars in one image."""
    ids = np.full(SIZE, 7, np.uint16)
    for number, mask in truth.items():
        ids[mask] = number
    scores, masks = (np.array(values) for values in zip(*predictions))
    things = np.full(len(predictions), THINGS.index("car"))
    result = average_precision([judge(things, scores, torch.from_numpy(masks), regions_of(ids))])
    return result["AP-car"], result["AP50-car"]


def rectangle(y, x, height, width):
    mask = np.zeros(SIZE, bool)
    mask[y : y + height, x : x + width] = True
    return mask


LEFT, RIGHT = rectangle(0, 0, 20, 20), rectangle(0, 30, 20, 20)


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
        # Too small to be evaluated
        ([(0.9, LEFT)], {26001: LEFT, 26002: rectangle(30, 30, 9, 11)}, (100, 100)),
    ],
)
def test_average_precision_by_hand(predictions, truth, expected):
    assert car(*predictions, truth=truth) == pytest.approx(expected)


def test_perfect_predictions_score_100(dataset):
    name, samples, truths, _ = dataset
    ids_of = {name2label[n].id: n for n in THINGS}
    predictions = [
        [(ids_of[i // 1000], 1.0, t == i) for i in np.unique(t).tolist() if i // 1000 in ids_of]
        for t in truths
    ]
    found = evaluate(name, samples, predictions)
    assert found["AP"] == found["AP50"] == 100


def test_nothing_found_and_nothing_there(dataset):
    name, samples, _, _ = dataset
    found = evaluate(name, samples, [[], [], [], []])
    assert found["AP"] == found["AP50"] == 0
    nothing = np.zeros(0, np.int64), np.zeros(0), torch.zeros(0, *SIZE, dtype=torch.bool)
    void = judge(*nothing, regions_of(np.zeros(SIZE, np.uint16)))
    for images in ([void, void], []):
        assert all(map(math.isnan, average_precision(images).values()))


def test_classes_follow_the_metadata(dataset):
    """A panoptic model predicts all 19 classes; of these the eight things count."""
    name, samples, _, predictions = dataset
    expected = evaluate(name, samples, predictions)
    metadata = MetadataCatalog.get(name)
    names = ["road", *reversed(THINGS)]
    MetadataCatalog.remove(name)
    MetadataCatalog.get(name).set(gt_dir=metadata.gt_dir, thing_classes=names)
    evaluator = CityscapesInstanceEvaluator(name)
    for sample, instances in zip(samples, predictions):
        shown = [*instances, ("road", 0.99, np.ones(SIZE, bool))]
        evaluator.process([sample], [{"instances": instances_of(shown, names)}])
    assert evaluator.evaluate()["segm"] == pytest.approx(expected, nan_ok=True)


def test_mistakes_are_one_sentence(dataset):
    name, samples, _, _ = dataset
    evaluator = CityscapesInstanceEvaluator(name)
    elsewhere = {"file_name": "leftImg8bit/val/ulm/ulm_000000_000019_leftImg8bit.png"}
    with pytest.raises(FileNotFoundError, match="ulm_000000_000019_gtFine_instanceIds"):
        evaluator.process([elsewhere], [{"instances": instances_of([])}])
    small = Instances((3, 4), scores=torch.zeros(0), pred_classes=torch.zeros(0))
    small.pred_masks = torch.zeros(0, 3, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"bonn_000001.*\(48, 64\) .* masks of shape \(3, 4\)"):
        evaluator.process([samples[1]], [{"instances": small}])
    unknown = instances_of([("car", 0.5, np.ones(SIZE, bool))])
    unknown.pred_classes += len(THINGS)
    with pytest.raises(ValueError, match=r"bonn_000001.*: a prediction of class 10, .* has 8"):
        evaluator.process([samples[1]], [{"instances": unknown}])
    path = Path(evaluator.gt_dir) / "bonn" / "bonn_000001_000019_gtFine_instanceIds.png"
    Image.fromarray(np.full(SIZE, 255, np.uint8)).save(path)
    with pytest.raises(ValueError, match=r"bonn_000001.* ids up to 255"):
        evaluator.process([samples[1]], [{"instances": instances_of([])}])
    MetadataCatalog.get("odd_classes").set(gt_dir="", thing_classes=["car", "tank"])
    with pytest.raises(ValueError, match="odd_classes: thing_classes has 'tank'"):
        CityscapesInstanceEvaluator("odd_classes")
    MetadataCatalog.remove("odd_classes")
