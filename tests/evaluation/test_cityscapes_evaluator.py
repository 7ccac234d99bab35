"""Our counting gives the numbers of cityscapesscripts' own, whoever counts which image."""

import copy
import math
import types

import numpy as np
import pytest
import torch
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as official
from cityscapesscripts.helpers.labels import labels
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from PIL import Image

from mask2former.config import load_config
from mask2former.evaluation import CityscapesSemSegEvaluator, build_evaluator
from mask2former.evaluation.cityscapes import confusion_matrix, instance_hits

HEIGHT, WIDTH, NUM_IMAGES = 24, 40, 3
TRAIN_ID = {label.id: label.trainId for label in labels if label.id >= 0}
CLASSES = [label for label in sorted(labels, key=lambda x: x.trainId) if not label.ignoreInEval]


def draw(generator, num_blocks):
    """Random rectangles of random label ids, with instances where the label has them."""
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    instances = np.zeros((HEIGHT, WIDTH), np.uint16)
    for number in range(num_blocks):
        label = labels[1 + generator.integers(len(labels) - 2)]
        y, x = generator.integers(HEIGHT - 4), generator.integers(WIDTH - 4)
        block = np.s_[y : y + generator.integers(3, 20), x : x + generator.integers(3, 20)]
        ids[block] = label.id
        is_instance = label.hasInstances and number % 4
        instances[block] = 1000 * label.id + number if is_instance else label.id
    return ids, instances


@pytest.fixture
def dataset(tmp_path):
    """Images' names, ground truth files, and predictions that are partly right."""
    generator = np.random.default_rng(3)
    city = tmp_path / "gtFine" / "val" / "bonn"
    city.mkdir(parents=True)
    dicts, predictions = [], []
    for i in range(NUM_IMAGES):
        ids, instances = draw(generator, 25)
        stem = city / f"bonn_{i:06}_000019_gtFine_"
        train_ids = np.array([TRAIN_ID[k] for k in range(34)])[ids]
        for kind, values in (
            ("labelIds", ids),
            ("instanceIds", instances),
            ("labelTrainIds", train_ids.astype(np.uint8)),
        ):
            Image.fromarray(values).save(f"{stem}{kind}.png")
        image = tmp_path / "leftImg8bit" / "val" / "bonn" / f"bonn_{i:06}_000019_leftImg8bit.png"
        dicts.append({"file_name": str(image), "sem_seg_file_name": f"{stem}labelTrainIds.png"})
        wrong = generator.integers(len(CLASSES), size=ids.shape)
        is_right = (train_ids < len(CLASSES)) & (generator.random(ids.shape) < 0.7)
        predictions.append(np.where(is_right, train_ids, wrong))
    name = f"drawn_{tmp_path.name}"
    DatasetCatalog.register(name, lambda: dicts)
    MetadataCatalog.get(name).set(
        gt_dir=str(tmp_path / "gtFine" / "val"),
        evaluator_type="cityscapes_sem_seg",
        stuff_classes=[label.name for label in CLASSES],
        ignore_label=255,
    )
    yield name, dicts, predictions
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def outputs_of(prediction):
    one_hot = torch.nn.functional.one_hot(torch.from_numpy(prediction), len(CLASSES))
    return [{"sem_seg": one_hot.permute(2, 0, 1).float()}]


def evaluate(name, dicts, predictions):
    evaluator = CityscapesSemSegEvaluator(name)
    evaluator.reset()
    for sample, prediction in zip(dicts, predictions):
        evaluator.process([sample], outputs_of(prediction))
    return evaluator.evaluate()["sem_seg"]


def official_results(dicts, predictions, folder, monkeypatch):
    """By evaluateImgLists, which counts with a function that numpy 2.4 has dropped."""
    if not hasattr(np, "in1d"):
        monkeypatch.setattr(official, "np", types.SimpleNamespace(**vars(np), in1d=np.isin))
    args = copy.copy(official.args)
    args.quiet, args.JSONOutput = True, False
    files = []
    for i, prediction in enumerate(predictions):
        files.append(str(folder / f"{i}.png"))
        ids = np.array([label.id for label in CLASSES], np.uint8)[prediction]
        Image.fromarray(ids).save(files[-1])
    truth = [d["sem_seg_file_name"].replace("labelTrainIds", "labelIds") for d in dicts]
    return official.evaluateImgLists(files, truth, args)


def test_scores_are_those_of_cityscapesscripts(dataset, tmp_path, monkeypatch):
    name, dicts, predictions = dataset
    found = evaluate(name, dicts, predictions)
    expected = official_results(dicts, predictions, tmp_path, monkeypatch)
    for ours, theirs in (
        ("IoU", "averageScoreClasses"),
        ("iIoU", "averageScoreInstClasses"),
        ("IoU_sup", "averageScoreCategories"),
        ("iIoU_sup", "averageScoreInstCategories"),
    ):
        assert found[ours] == pytest.approx(100 * expected[theirs], rel=1e-12), ours
    for label in CLASSES:
        score = expected["classScores"][label.name]
        assert found[f"IoU-{label.name}"] == pytest.approx(100 * score, nan_ok=True)
    assert 20 < found["IoU"] < 90 and 20 < found["iIoU"] < 90


def test_order_of_images_and_number_of_processes_change_nothing(dataset, monkeypatch):
    name, dicts, predictions = dataset
    whole = evaluate(name, dicts, predictions)
    parts = []
    for chosen in (slice(1, None), slice(0, 1)):
        evaluator = CityscapesSemSegEvaluator(name)
        for sample, prediction in zip(dicts[chosen], predictions[chosen]):
            evaluator.process([sample], outputs_of(prediction))
        parts.append((evaluator.confusion, evaluator.instances))
    monkeypatch.setattr("detectron2.utils.comm.gather", lambda data: parts)
    assert CityscapesSemSegEvaluator(name).evaluate()["sem_seg"] == whole


def test_reset_forgets(dataset):
    name, dicts, predictions = dataset
    evaluator = CityscapesSemSegEvaluator(name)
    evaluator.process([dicts[0]], outputs_of(predictions[1]))
    evaluator.reset()
    for sample, prediction in zip(dicts, predictions):
        evaluator.process([sample], outputs_of(prediction))
    assert evaluator.evaluate()["sem_seg"] == evaluate(name, dicts, predictions)


def test_perfect_predictions_score_100_where_there_are_pixels(dataset):
    name, dicts, _ = dataset
    truth = [np.asarray(Image.open(d["sem_seg_file_name"])) for d in dicts]
    found = evaluate(name, dicts, [np.where(t == 255, 0, t).astype(np.int64) for t in truth])
    classes = [v for k, v in found.items() if k.startswith("IoU-")]
    present = set(np.unique(np.stack(truth))) - {255}
    assert found["IoU"] == 100 and found["iIoU"] == 100
    assert sum(not math.isnan(v) for v in classes) == len(present)


def test_missing_ground_truth_is_named(dataset):
    name, dicts, predictions = dataset
    sample = dicts[0] | {"file_name": "leftImg8bit/val/ulm/ulm_000000_000019_leftImg8bit.png"}
    with pytest.raises(FileNotFoundError, match="ulm_000000_000019_gtFine_labelIds"):
        CityscapesSemSegEvaluator(name).process([sample], outputs_of(predictions[0]))


def test_ground_truth_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="values up to 255"):
        confusion_matrix(np.zeros((2, 2), int), np.full((2, 2), 255))
    with pytest.raises(ValueError, match=r"shape \(2, 3\)"):
        confusion_matrix(np.zeros((2, 2), int), np.zeros((2, 3), int))


def test_image_without_instances_counts_none():
    assert not instance_hits(np.full((2, 2), 26), np.full((2, 2), 26)).any()


def test_both_evaluators_of_cityscapes_agree_and_keep_their_keys(dataset, tmp_path):
    name, dicts, predictions = dataset
    evaluator = build_evaluator(load_config("quick_start.yaml"), name, str(tmp_path / "inference"))
    assert isinstance(evaluator, DatasetEvaluator)
    evaluator.reset()
    for sample, prediction in zip(dicts, predictions):
        evaluator.process([sample], outputs_of(prediction))
    results = evaluator.evaluate()
    assert set(results) == {"sem_seg", "sem_seg_pixel"}
    # The means differ where a class was predicted that no image has: 0 there, left out here.
    scores = [k for k, v in results["sem_seg_pixel"].items() if k.startswith("IoU-") and v == v]
    assert len(scores) > 10
    for key in scores:
        assert results["sem_seg"][key] == pytest.approx(results["sem_seg_pixel"][key], rel=1e-9)


def test_dataset_without_an_evaluator_is_one_sentence():
    MetadataCatalog.get("odd_dataset").set(evaluator_type="odd")
    with pytest.raises(ValueError, match="odd_dataset: no evaluator for evaluator_type 'odd'"):
        build_evaluator(load_config("quick_start.yaml"), "odd_dataset", "")
    MetadataCatalog.remove("odd_dataset")
