"""Our counting gives the numbers of cityscapesscripts' own, whoever counts which image."""

import math

import numpy as np
import pytest
import torch
from cityscapesscripts.helpers.labels import labels
from detectron2.data import DatasetCatalog, MetadataCatalog
from hypothesis import given, settings
from hypothesis import strategies as st
from perfect import read, semantic
from PIL import Image

from mask2former.evaluation import CityscapesSemSegEvaluator
from mask2former.evaluation.cityscapes import CLASS_NAMES
from mask2former.evaluation.reference import PixelEvaluator, pixel_scores

HEIGHT, WIDTH, NUM_IMAGES = 24, 40, 3
NAME = "drawn"
TRAIN_ID = np.array([label.trainId for label in labels if label.id >= 0])
CLASSES = [label for label in sorted(labels, key=lambda x: x.trainId) if not label.ignoreInEval]
LABEL_ID = np.array([label.id for label in CLASSES])
CAR, CARAVAN, RIDER, UNLABELED = 26, 29, 25, 0


def draw(generator, num_blocks):
    """Random rectangles of random label ids, with instances and groups where the label has them."""
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


def predict(generator, ids):
    """Train ids, of which most are right."""
    wrong = generator.integers(len(CLASSES), size=ids.shape)
    train_ids = TRAIN_ID[ids]
    is_right = (train_ids < len(CLASSES)) & (generator.random(ids.shape) < 0.7)
    return np.where(is_right, train_ids, wrong)


def forget():
    for catalog in (DatasetCatalog, MetadataCatalog):
        if NAME in catalog:
            catalog.remove(NAME)


@pytest.fixture(autouse=True)
def _forget():
    yield
    forget()


def write(folder, truths):
    """Pairs of label ids and instance ids as a dataset; its dicts."""
    forget()
    city = folder / "gtFine" / "val" / "bonn"
    city.mkdir(parents=True, exist_ok=True)
    dicts = []
    for i, (ids, instances) in enumerate(truths):
        stem = city / f"bonn_{i:06}_000019_gtFine_"
        train_ids = TRAIN_ID[ids].astype(np.uint8)
        Image.fromarray(ids).save(f"{stem}labelIds.png")
        Image.fromarray(instances).save(f"{stem}instanceIds.png")
        Image.fromarray(train_ids).save(f"{stem}labelTrainIds.png")
        image = folder / "leftImg8bit" / "val" / "bonn" / f"bonn_{i:06}_000019_leftImg8bit.png"
        dicts.append({"file_name": str(image), "sem_seg_file_name": f"{stem}labelTrainIds.png"})
    DatasetCatalog.register(NAME, lambda: dicts)
    MetadataCatalog.get(NAME).set(
        gt_dir=str(folder / "gtFine" / "val"),
        stuff_classes=[label.name for label in CLASSES],
        ignore_label=255,
    )
    return dicts


@pytest.fixture
def drawn(tmp_path):
    """A dataset's dicts, and predictions that are partly right."""
    generator = np.random.default_rng(3)
    truths = [draw(generator, 25) for _ in range(NUM_IMAGES)]
    return write(tmp_path, truths), [predict(generator, ids) for ids, _ in truths]


def scores_of(prediction):
    one_hot = torch.nn.functional.one_hot(torch.from_numpy(prediction), len(CLASSES))
    return one_hot.permute(2, 0, 1).float()


def evaluate(dicts, predictions, *, with_pixels=False, as_scores=True):
    evaluator = CityscapesSemSegEvaluator(NAME, with_pixels)
    evaluator.reset()
    for sample, prediction in zip(dicts, predictions):
        given = scores_of(prediction) if as_scores else torch.from_numpy(prediction)
        evaluator.process([sample], [{"sem_seg": given}])
    return evaluator.evaluate()


def official_results(dicts, predictions, folder):
    files = []
    for i, prediction in enumerate(predictions):
        files.append(str(folder / f"{i}.png"))
        Image.fromarray(LABEL_ID[prediction].astype(np.uint8)).save(files[-1])
    truth = [d["sem_seg_file_name"].replace("labelTrainIds", "labelIds") for d in dicts]
    return pixel_scores(files, truth)


def assert_official(dicts, predictions, folder):
    expected = official_results(dicts, predictions, folder)
    for as_scores in (True, False):
        found = evaluate(dicts, predictions, as_scores=as_scores)["sem_seg"]
        assert set(found) == set(expected)
        assert found == pytest.approx(expected, rel=1e-12, nan_ok=True)
    return expected


def test_scores_are_those_of_cityscapesscripts(drawn, tmp_path):
    scores = assert_official(*drawn, tmp_path)
    assert 20 < scores["IoU"] < 90 and 20 < scores["iIoU"] < 90


def one_colour(label_id, instance_id=None):
    ids = np.full((4, 5), label_id, np.uint8)
    return ids, np.full((4, 5), label_id if instance_id is None else instance_id, np.uint16)


def single_pixels():
    ids = np.full((4, 5), 7, np.uint8)
    instances = ids.astype(np.uint16)
    for x, instance in enumerate((26000, 26001, 25999, 33999, CAR)):  # the last one is a group
        ids[1, x] = instance // 1000 if instance > 1000 else instance
        instances[1, x] = instance
    return ids, instances


CASES = {
    "all void": [one_colour(UNLABELED)],
    "all void beside another": [one_colour(UNLABELED), one_colour(CAR, 26001)],
    "a group only": [one_colour(CAR)],
    "an instance only": [one_colour(RIDER, 25000)],
    "what is not evaluated": [one_colour(CARAVAN, 29001)],
    "single pixels": [single_pixels(), one_colour(33, 33999)],
}


@pytest.mark.parametrize("case", CASES)
def test_odd_ground_truth(tmp_path, case):
    dicts = write(tmp_path, CASES[case])
    generator = np.random.default_rng(0)
    for train_id in (0, 12, 13, None):
        predictions = [
            generator.integers(len(CLASSES), size=(4, 5))
            if train_id is None
            else np.full((4, 5), train_id)
            for _ in dicts
        ]
        assert_official(dicts, predictions, tmp_path)


@st.composite
def pixels(draw):
    size = draw(st.integers(1, 6))
    ids = st.sampled_from([0, 1, 4, 7, 8, 11, 23, 24, 25, 26, 29, 30, 33])
    truth = draw(st.lists(ids, min_size=size, max_size=size))
    number = draw(st.lists(st.sampled_from([None, 0, 1, 999]), min_size=size, max_size=size))
    instances = [
        1000 * i + n if labels_by_id[i].hasInstances and n is not None else i
        for i, n in zip(truth, number)
    ]
    found = draw(st.lists(st.sampled_from([0, 11, 12, 13, 14]), min_size=size, max_size=size))
    return np.uint8([truth]), np.uint16([instances]), np.array([found])


labels_by_id = {label.id: label for label in labels}


@settings(deadline=None, derandomize=True, max_examples=50)
@given(case=pixels())
def test_few_pixels(tmp_path_factory, case):
    ids, instances, prediction = case
    folder = tmp_path_factory.mktemp("few")
    assert_official(write(folder, [(ids, instances)]), [prediction], folder)


def test_order_of_images_and_number_of_processes_change_nothing(drawn, monkeypatch):
    dicts, predictions = drawn
    whole = evaluate(dicts, predictions)["sem_seg"]
    backwards = evaluate(dicts[::-1], predictions[::-1])["sem_seg"]
    assert backwards == pytest.approx(whole, rel=1e-12, nan_ok=True)
    gathered = []
    with monkeypatch.context() as patch:
        patch.setattr("detectron2.utils.comm.gather", lambda data: gathered.append(data) or [])
        patch.setattr("detectron2.utils.comm.is_main_process", lambda: False)
        for share in (slice(1, None), slice(0, 1)):
            assert evaluate(dicts[share], predictions[share]) is None
    monkeypatch.setattr("detectron2.utils.comm.gather", lambda data: gathered)
    found = CityscapesSemSegEvaluator(NAME).evaluate()["sem_seg"]
    assert found == pytest.approx(whole, rel=1e-12, nan_ok=True)


def test_an_image_predicted_twice_counts_once(drawn):
    dicts, predictions = drawn
    twice = evaluate([*dicts, dicts[0]], [*predictions, predictions[1]])
    assert twice == evaluate(dicts, predictions)


def test_reset_forgets(drawn):
    dicts, predictions = drawn
    evaluator = CityscapesSemSegEvaluator(NAME)
    evaluator.process([dicts[0]], [{"sem_seg": scores_of(predictions[1])}])
    evaluator.reset()
    evaluator.process(dicts, [{"sem_seg": scores_of(p)} for p in predictions])
    assert evaluator.evaluate() == evaluate(dicts, predictions)


def test_perfect_predictions_score_100_where_there_are_pixels(drawn):
    dicts, _ = drawn
    truth = [read(d["sem_seg_file_name"]) for d in dicts]
    found = evaluate(dicts, [np.where(t == 255, 0, t) for t in truth])["sem_seg"]
    classes = [v for k, v in found.items() if k.startswith("IoU-")]
    present = set(np.unique(np.stack(truth))) - {255}
    assert found["IoU"] == 100 and found["iIoU"] == 100
    assert sum(not math.isnan(v) for v in classes) == len(present)


def test_label_ids_give_what_the_files_of_train_ids_give(minis):
    name = "mini_cityscapes_fine_sem_seg_val"
    metadata, samples = MetadataCatalog.get(name), DatasetCatalog.get(name)
    both = CityscapesSemSegEvaluator(name, with_pixels=True)
    reference = PixelEvaluator(name, distributed=False)
    reference.reset()
    for sample in samples:
        output = {"sem_seg": semantic(sample, metadata).roll(3, -1)}
        both.process([sample], [output])
        reference.process([sample], [output])
    results = both.evaluate()
    assert list(results) == ["sem_seg", "sem_seg_pixel"]
    expected = reference.evaluate()["sem_seg_pixel"]
    expected = {k: v for k, v in expected.items() if "Boundary" not in k and "min(" not in k}
    found = results["sem_seg_pixel"]
    assert list(found) == list(expected)
    assert found == pytest.approx(expected, rel=1e-12, nan_ok=True)
    assert 20 < found["mIoU"] < 99.9


def test_void_is_no_ones_pixel(tmp_path):
    dicts = write(tmp_path, [one_colour(UNLABELED), one_colour(CAR, 26001)])
    predictions = [np.full((4, 5), 0), np.full((4, 5), 13)]
    found = evaluate(dicts, predictions, with_pixels=True)
    assert found["sem_seg"]["IoU"] == found["sem_seg_pixel"]["pACC"] == 100
    assert math.isnan(found["sem_seg"]["IoU-road"])


def test_classes_of_other_datasets_have_no_label_ids(drawn):
    name = "mini_cityscapes_fine_sem_seg_val"
    assert MetadataCatalog.get(name).stuff_classes == CLASS_NAMES
    MetadataCatalog.remove(NAME)
    MetadataCatalog.get(NAME).set(gt_dir="", stuff_classes=["road", "car"])
    assert CityscapesSemSegEvaluator(NAME).gt_dir == ""
    with pytest.raises(ValueError, match="drawn: its stuff_classes are not Cityscapes' 19"):
        CityscapesSemSegEvaluator(NAME, with_pixels=True)


def test_missing_ground_truth_is_named(drawn):
    dicts, predictions = drawn
    sample = dicts[0] | {"file_name": "leftImg8bit/val/ulm/ulm_000000_000019_leftImg8bit.png"}
    with pytest.raises(FileNotFoundError, match="ulm_000000_000019_gtFine_labelIds"):
        evaluate([sample], predictions)


@pytest.mark.parametrize(
    "ids, instances, prediction, sentence",
    [
        (255, 0, 0, "bonn_.*: its labelIds have 255, and Cityscapes' are 0..33"),
        (34, 0, 0, "bonn_.*: its labelIds have 34"),
        (26, 34000, 0, "bonn_.*: its instanceIds have 34000"),
        (26, 26001, 19, "the prediction for .*bonn_.* has label 19"),
        (26, 26001, -1, "the prediction for .*bonn_.* has label -1"),
    ],
)
def test_ground_truth_of_another_kind_is_refused(tmp_path, ids, instances, prediction, sentence):
    dicts = write(tmp_path, [one_colour(0)])
    stem = dicts[0]["sem_seg_file_name"].removesuffix("labelTrainIds.png")
    Image.fromarray(np.full((4, 5), ids, np.uint8)).save(f"{stem}labelIds.png")
    Image.fromarray(np.full((4, 5), instances, np.uint16)).save(f"{stem}instanceIds.png")
    with pytest.raises(ValueError, match=sentence) as caught:
        evaluate(dicts, [np.full((4, 5), prediction)], as_scores=False)
    assert "\n" not in str(caught.value)


def test_another_size_is_refused(drawn):
    dicts, _ = drawn
    with pytest.raises(ValueError, match=r"bonn_.* has size \(2, 2\).* \(24, 40\)"):
        evaluate(dicts, [np.zeros((2, 2), int)], as_scores=False)
