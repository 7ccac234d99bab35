"""The numbers of detectron2's SemSegEvaluator, of anything that can be predicted."""

import math

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import SemSegEvaluator as Reference
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mask2former.evaluation.sem_seg import SemSegEvaluator

NAME = "judged"
IGNORED = {np.uint8: 255, np.uint16: 65535}


@pytest.fixture(autouse=True)
def _forget():
    yield
    forget()


def forget():
    for catalog in (DatasetCatalog, MetadataCatalog):
        if NAME in catalog:
            catalog.remove(NAME)


def register(folder, truths, num_classes, ignore_label=255):
    """Truths (H,W) of any type as PNGs in a dataset; its dicts."""
    forget()
    dicts = []
    for i, truth in enumerate(truths):
        Image.fromarray(truth).save(folder / f"{i}.png")
        dicts.append({"file_name": f"{i}.jpg", "sem_seg_file_name": str(folder / f"{i}.png")})
    DatasetCatalog.register(NAME, lambda: dicts)
    names = [f"class{k}" for k in range(num_classes)]
    MetadataCatalog.get(NAME).set(stuff_classes=names, ignore_label=ignore_label)
    return dicts


def judge(evaluator, dicts, predictions):
    evaluator.reset()
    for sample, prediction in zip(dicts, predictions):
        evaluator.process([sample], [{"sem_seg": prediction}])
    return evaluator.evaluate()["sem_seg"]


def scores_of(labels, num_classes):
    labels = torch.as_tensor(np.asarray(labels, np.int64))
    return torch.nn.functional.one_hot(labels, num_classes).permute(2, 0, 1).float()


def assert_as_the_reference(dicts, predictions, num_classes):
    """Of scores and of labels."""
    scores = [scores_of(prediction, num_classes) for prediction in predictions]
    expected = judge(Reference(NAME, distributed=False), dicts, scores)
    expected = {k: v for k, v in expected.items() if "Boundary" not in k and "min(" not in k}
    for given_as in (scores, [torch.as_tensor(p) for p in predictions]):
        found = judge(SemSegEvaluator(NAME), dicts, given_as)
        assert list(found) == list(expected)
        assert list(found.values()) == pytest.approx(
            list(expected.values()), rel=1e-9, abs=1e-9, nan_ok=True
        )
    return expected


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("num_classes", [1, 2, 19, 200])
def test_random_predictions(tmp_path, num_classes, dtype):
    generator = np.random.default_rng(num_classes)
    ignored = IGNORED[dtype]
    truths, predictions = [], []
    for shape in ((9, 14), (1, 1), (20, 3)):
        truth = generator.integers(num_classes, size=shape)
        wrong = generator.integers(num_classes, size=shape)
        predictions.append(np.where(generator.random(shape) < 0.6, truth, wrong))
        truth[generator.random(shape) < 0.2] = ignored
        truths.append(truth.astype(dtype))
    dicts = register(tmp_path, truths, num_classes, ignored)
    scores = assert_as_the_reference(dicts, predictions, num_classes)
    assert 30 < scores["mIoU"] <= 100


@st.composite
def few_pixels(draw):
    """(truth, prediction, number of classes): all kinds of classes that are missing somewhere."""
    num_classes = draw(st.integers(1, 4))
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    size = shape[0] * shape[1]
    labels = st.sampled_from([*range(num_classes), 255])
    truth = draw(st.lists(labels, min_size=size, max_size=size))
    found = draw(st.lists(st.integers(0, num_classes - 1), min_size=size, max_size=size))
    return np.uint8(truth).reshape(shape), np.array(found).reshape(shape), num_classes


@settings(deadline=None, derandomize=True, max_examples=60)
@given(case=few_pixels())
def test_few_pixels(tmp_path_factory, case):
    truth, prediction, num_classes = case
    dicts = register(tmp_path_factory.mktemp("few"), [truth], num_classes)
    assert_as_the_reference(dicts, [prediction], num_classes)


def test_perfect_wrong_and_ignored_images(tmp_path):
    truth = np.array([[0, 1, 1], [2, 2, 2]], np.uint8)
    for truths, prediction, expected in (
        ([truth], truth.astype(int), 100),
        ([truth], (truth.astype(int) + 1) % 3, 0),
        ([np.full_like(truth, 255), truth], truth.astype(int), 100),
        ([np.full_like(truth, 255)], truth.astype(int), math.nan),
    ):
        dicts = register(tmp_path, truths, 4)
        scores = assert_as_the_reference(dicts, [prediction] * len(truths), 4)
        assert scores["mIoU"] == pytest.approx(expected, nan_ok=True)


def test_a_label_that_is_ignored_may_be_the_number_of_classes_or_a_class(tmp_path):
    truth = np.array([[0, 1, 2], [2, 1, 3]], np.uint8)
    prediction = np.array([[0, 1, 1], [2, 0, 2]])
    dicts = register(tmp_path, [truth], 3, ignore_label=3)
    assert_as_the_reference(dicts, [prediction], 3)
    dicts = register(tmp_path, [truth], 4, ignore_label=0)
    assert_as_the_reference(dicts, [prediction], 4)


@pytest.mark.parametrize("num_classes", [255, 256, 300, 1100, 70_000])
def test_more_classes_than_a_byte_or_two_can_tell(tmp_path, num_classes):
    generator = np.random.default_rng(1)
    labels = np.array([0, 1, 254, 255, 256, 257, 65535, 65536, num_classes - 1])
    labels = labels[labels < num_classes]
    truth = generator.choice(labels, (8, 9))
    prediction = np.where(generator.random(truth.shape) < 0.5, truth, generator.choice(labels))
    prediction[0, 0] = truth[0, 0] = num_classes - 1
    truth[1] = -1
    dicts = register(tmp_path, [np.zeros((8, 9), np.uint8)], num_classes, ignore_label=-1)
    evaluator = SemSegEvaluator(NAME, sem_seg_loading_fn=lambda path, dtype: truth.astype(dtype))
    found = judge(evaluator, dicts, [torch.from_numpy(prediction)])
    counted = truth >= 0
    for label in np.unique(truth[counted]):
        true, predicted = truth == label, (prediction == label) & counted
        iou = (true & predicted).sum() / (true | predicted).sum()
        assert found[f"IoU-class{label}"] == pytest.approx(100 * iou)
    present = [v for k, v in found.items() if k.startswith("IoU-") and not math.isnan(v)]
    assert len(present) == len(np.unique(truth[counted]))
    assert found["pACC"] == pytest.approx(100 * (truth == prediction)[counted].mean())


def test_pixels_of_one_bit_and_of_palettes_are_labels(tmp_path):
    truth = np.array([[0, 1, 1], [1, 0, 0]], np.uint8)
    dicts = register(tmp_path, [truth, truth], 2)
    Image.fromarray(truth.astype(bool)).save(dicts[0]["sem_seg_file_name"])
    palette = Image.fromarray(truth, mode="P")
    palette.putpalette([200, 0, 0, 0, 200, 0])
    palette.save(dicts[1]["sem_seg_file_name"])
    assert judge(SemSegEvaluator(NAME), dicts, [torch.from_numpy(truth)] * 2)["mIoU"] == 100


def test_an_image_predicted_twice_counts_once(tmp_path):
    truth = np.array([[0, 1, 1]], np.uint8)
    dicts = register(tmp_path, [truth, truth], 2)
    right, wrong = torch.tensor([[0, 1, 1]]), torch.tensor([[0, 0, 0]])
    once = judge(SemSegEvaluator(NAME), dicts, [right, wrong])
    assert judge(SemSegEvaluator(NAME), [*dicts, dicts[1]], [right, wrong, right]) == once
    assert once["pACC"] == pytest.approx(100 * 4 / 6)


def test_reset_forgets_and_nothing_is_nan(tmp_path):
    dicts = register(tmp_path, [np.array([[0, 1]], np.uint8)], 2)
    evaluator = SemSegEvaluator(NAME)
    assert judge(evaluator, dicts, [torch.tensor([[1, 1]])])["pACC"] == 50
    scores = judge(evaluator, [], [])
    assert all(math.isnan(scores[key]) for key in ("mIoU", "mACC", "pACC", "IoU-class1"))


def test_images_of_two_processes_are_those_of_one(tmp_path, monkeypatch):
    generator = np.random.default_rng(0)
    truths = generator.integers(5, size=(5, 6, 7)).astype(np.uint8)
    predictions = list(torch.from_numpy(generator.integers(5, size=(5, 6, 7))))
    dicts = register(tmp_path, truths, 5)
    whole = judge(SemSegEvaluator(NAME), dicts, predictions)
    gathered = []
    monkeypatch.setattr("detectron2.utils.comm.gather", lambda data: gathered.append(data) or [])
    monkeypatch.setattr("detectron2.utils.comm.is_main_process", lambda: False)
    for share in (slice(3, None), slice(3)):
        evaluator = SemSegEvaluator(NAME)
        evaluator.process(dicts[share], [{"sem_seg": p} for p in predictions[share]])
        assert evaluator.evaluate() is None
    assert len(gathered) == 2
    monkeypatch.setattr("detectron2.utils.comm.is_main_process", lambda: True)
    monkeypatch.setattr("detectron2.utils.comm.gather", lambda data: gathered)
    assert SemSegEvaluator(NAME).evaluate()["sem_seg"] == whole


@pytest.mark.parametrize(
    "truth, prediction, sentence",
    [
        ([[0, 0]], [[0], [0]], r"the prediction for 0\.jpg has size \(2, 1\).*0\.png \(1, 2\)"),
        ([[0, 7]], [[0, 1]], r"0\.png has label 7, but judged has 2 classes and ignores 255"),
        ([[0, 2]], [[0, 1]], r"0\.png has label 2, but judged has 2 classes"),
        ([[0, 1]], [[0, 2]], r"the prediction for 0\.jpg has label 2"),
        ([[0, 1]], [[0, -1]], r"the prediction for 0\.jpg has label -1"),
    ],
)
def test_what_does_not_fit_is_one_sentence(tmp_path, truth, prediction, sentence):
    dicts = register(tmp_path, [np.array(truth, np.uint8)], 2)
    with pytest.raises(ValueError, match=sentence) as caught:
        judge(SemSegEvaluator(NAME), dicts, [torch.tensor(prediction)])
    assert "\n" not in str(caught.value)


def test_files_that_are_missing_or_broken_are_named(tmp_path):
    truth = np.random.default_rng(0).integers(2, size=(40, 50))
    dicts = register(tmp_path, [truth.astype(np.uint8)], 2)
    path, prediction = tmp_path / "0.png", torch.from_numpy(truth)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"0\.png: not a whole picture"):
        judge(SemSegEvaluator(NAME), dicts, [prediction])
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"0\.png: no such file; prepare the dataset"):
        judge(SemSegEvaluator(NAME), dicts, [prediction])


def test_a_picture_of_another_dataset_is_named(tmp_path):
    register(tmp_path, [np.zeros((2, 2), np.uint8)], 2)
    with pytest.raises(ValueError, match=r"other\.jpg: no picture of judged"):
        judge(SemSegEvaluator(NAME), [{"file_name": "other.jpg"}], [torch.zeros(2, 2).long()])
