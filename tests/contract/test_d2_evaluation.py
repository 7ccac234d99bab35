"""detectron2.evaluation behaves the same whichever detectron2 provides it.

The numbers are compared with loops over pixels, which know nothing of confusion matrices.
"""

import importlib
import json
import sys
import types
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from cityscapesscripts.helpers.labels import category2labels, labels
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import (
    CityscapesSemSegEvaluator,
    SemSegEvaluator,
)
from detectron2.utils import comm
from PIL import Image
from scipy.ndimage import minimum_filter
from torch import nn

import mask2former

SIZE = (40, 60)
EVALUATED = [label for label in labels if not label.ignoreInEval]
CLASSES = [label.name for label in EVALUATED]
NAME = "contract_cityscapes_val"


# ------------------------------------------------------------------------ a little Cityscapes
def write_cityscapes(root):
    """Ground truth of four images in two cities: blocks of classes, void, and two cars."""
    rng = np.random.default_rng(0)
    label_ids = np.array([label.id for label in EVALUATED if label.name != "train"], dtype=np.uint8)
    for index in range(4):
        city = "aachen" if index < 2 else "bochum"
        blocks = rng.choice(label_ids, size=(SIZE[0] // 10, SIZE[1] // 10))
        blocks[0, 0] = 3  # out of roi
        ids = np.kron(blocks, np.ones((10, 10), dtype=np.uint8))
        instances = np.where(np.isin(ids, [24, 26]), ids.astype(np.int32) * 1000, ids)
        ids[20:26, 5:25] = 26
        instances[20:26, 5:12], instances[20:26, 12:25] = 26001, 26002
        train_ids = np.full(SIZE, 255, dtype=np.uint8)
        for label in EVALUATED:
            train_ids[ids == label.id] = label.trainId
        folder = root / "gtFine" / "val" / city
        folder.mkdir(parents=True, exist_ok=True)
        stem = f"{city}_000000_{index:06d}"
        Image.fromarray(ids).save(folder / f"{stem}_gtFine_labelIds.png")
        Image.fromarray(instances.astype(np.uint16)).save(folder / f"{stem}_gtFine_instanceIds.png")
        Image.fromarray(train_ids).save(folder / f"{stem}_gtFine_labelTrainIds.png")


def register(root):
    records = []
    for path in sorted((root / "gtFine" / "val").glob("*/*_labelTrainIds.png")):
        image = path.name.replace("_gtFine_labelTrainIds.png", "_leftImg8bit.png")
        records.append({"file_name": str(root / image), "sem_seg_file_name": str(path)})
    DatasetCatalog.register(NAME, lambda: records)
    MetadataCatalog.get(NAME).set(
        stuff_classes=CLASSES, ignore_label=255, gt_dir=str(root / "gtFine" / "val")
    )
    return records


def predict(record):
    """Class scores (19,H,W): the ground truth with a third of it wrong, seeded by its position."""
    gt = read(record["sem_seg_file_name"])
    rng = np.random.default_rng(int(gt.sum()))
    wrong = np.kron(rng.random((SIZE[0] // 5, SIZE[1] // 5)) < 0.33, np.ones((5, 5))) > 0
    # "train" (16) is predicted, but in no ground truth
    guess = np.where(wrong | (gt == 255), rng.choice([0, 5, 11, 13, 16]), gt)
    return nn.functional.one_hot(torch.from_numpy(guess), 19).permute(2, 0, 1).float()


def read(path):
    return np.asarray(Image.open(path)).astype(np.int64)


@pytest.fixture
def cityscapes(tmp_path):
    write_cityscapes(tmp_path)
    yield register(tmp_path)
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


@pytest.fixture(autouse=True)
def _usable_cityscapesscripts():
    make_cityscapesscripts_usable()


def make_cityscapesscripts_usable():
    """The real evaluator imports its authors' internal copy of cityscapesscripts, which calls a
    function that NumPy 2.4 has removed."""
    if mask2former.DETECTRON2_PROVIDER == "embedded":
        return
    copied = "deeplearning.projects.cityscapesApi.cityscapesscripts"
    script = ".evaluation.evalPixelLevelSemanticLabeling"
    for name in ("", ".helpers", ".helpers.labels", ".evaluation", script):
        sys.modules[copied + name] = importlib.import_module("cityscapesscripts" + name)
    for depth in (1, 2, 3):
        name = ".".join(copied.split(".")[:depth])
        sys.modules.setdefault(name, types.ModuleType(name))
    if not hasattr(np, "in1d"):
        sys.modules[copied + script].np = SimpleNamespace(**vars(np), in1d=np.isin)


# ---------------------------------------------------------------------------------------- oracles
def ratio(part, whole):
    return 100 * part / whole if whole > 0 else float("nan")


def sem_seg_oracle(gts, preds, names):
    """The metrics from the pixels of all images in one row; 255 is ignored."""
    num_classes = len(names)
    width = round(0.02 * np.sqrt(SIZE[0] ** 2 + SIZE[1] ** 2))

    def edges(image):
        padded = np.where(image == 255, num_classes, image)
        return padded - minimum_filter(padded, size=2 * width + 1, mode="constant", cval=0)

    def iou(pred, gt, index, needs_gt):
        pred, gt = pred[gt < num_classes], gt[gt < num_classes]  # ignored pixels count for nothing
        in_pred, in_gt = pred == index, gt == index
        is_there = in_gt.any() or not needs_gt
        return ratio((in_pred & in_gt).sum(), (in_pred | in_gt).sum()) if is_there else np.nan

    pred, gt = np.concatenate(preds).ravel(), np.concatenate(gts).ravel()
    b_pred, b_gt = (np.concatenate([edges(i) for i in images]).ravel() for images in (preds, gts))
    pred, gt = pred[gt != 255], gt[gt != 255]
    metrics = {"pACC": ratio((pred == gt).sum(), len(gt)), "fwIoU": 0.0}
    for index, name in enumerate(names):
        metrics[f"IoU-{name}"] = iou(pred, gt, index, needs_gt=True)
        metrics[f"BoundaryIoU-{name}"] = iou(b_pred, b_gt, index, needs_gt=False)
        both = metrics[f"IoU-{name}"], metrics[f"BoundaryIoU-{name}"]
        metrics[f"min(IoU, B-Iou)-{name}"] = np.nan if np.isnan(both[0]) else np.nanmin(both)
        metrics[f"ACC-{name}"] = ratio((pred[gt == index] == index).sum(), (gt == index).sum())
        metrics["fwIoU"] += np.nan_to_num(metrics[f"IoU-{name}"]) * (gt == index).mean()
    for mean, prefix in (("mIoU", "IoU-"), ("mACC", "ACC-")):
        metrics[mean] = np.nanmean([v for name, v in metrics.items() if name.startswith(prefix)])
    return metrics


def cityscapes_oracle(records):
    """IoU and instance-weighted iIoU, by the benchmark's definitions, image sets in one row."""
    gts, instances, preds = [], [], []
    to_id = np.array([label.id for label in EVALUATED])
    for record in records:
        path = record["sem_seg_file_name"]
        gts.append(read(path.replace("labelTrainIds", "labelIds")))
        instances.append(read(path.replace("labelTrainIds", "instanceIds")) + 10**6 * len(gts))
        preds.append(to_id[predict(record).argmax(dim=0).numpy()])
    gt, instance, pred = (np.concatenate(part).ravel() for part in (gts, instances, preds))
    evaluated = np.isin(gt, to_id)
    module = importlib.import_module("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    class_size = module.args.avgClassSize

    def scores(ids, weigh):
        in_gt, in_pred = np.isin(gt, ids), np.isin(pred, ids)
        false_positive = (evaluated & in_pred & ~in_gt).sum()
        true_positive, false_negative = (in_gt & in_pred).sum(), (in_gt & ~in_pred).sum()
        if weigh:
            true_positive = false_negative = 0.0
            for one in np.unique(instance[in_gt & (instance % 10**6 > 1000)]):
                mask = instance == one
                name = next(label.name for label in EVALUATED if label.id == gt[mask][0])
                weight = class_size[name] / mask.sum()
                true_positive += weight * (mask & in_pred).sum()
                false_negative += weight * (mask & ~in_pred).sum()
        return ratio(true_positive, true_positive + false_positive + false_negative)

    things = [label.id for label in EVALUATED if label.hasInstances]
    groups = {
        category: [label.id for label in members if not label.ignoreInEval]
        for category, members in category2labels.items()
    }
    groups = {category: ids for category, ids in groups.items() if ids}
    thing_groups = {c: ids for c, ids in groups.items() if set(ids) <= set(things)}
    return {
        "IoU": np.nanmean([scores([i], weigh=False) for i in to_id]),
        "iIoU": np.nanmean([scores([i], weigh=True) for i in things]),
        "IoU_sup": np.nanmean([scores(ids, weigh=False) for ids in groups.values()]),
        "iIoU_sup": np.nanmean([scores(ids, weigh=True) for ids in thing_groups.values()]),
    }


# ----------------------------------------------------------------------------- the two evaluators
def evaluate(evaluator, records, batch_size=2):
    evaluator.reset()
    for start in range(0, len(records), batch_size):
        batch = records[start : start + batch_size]
        evaluator.process(batch, [{"sem_seg": predict(record)} for record in batch])
    return evaluator.evaluate()


def same(results, expected):
    assert results.keys() == expected.keys()
    for name, value in expected.items():
        assert results[name] == pytest.approx(value, abs=1e-6, nan_ok=True), name


def test_sem_seg_evaluator_counts_pixels(cityscapes, tmp_path):
    output = tmp_path / "output"
    results = evaluate(SemSegEvaluator(NAME, output_dir=str(output)), cityscapes)
    assert list(results) == ["sem_seg"]
    gts = [read(record["sem_seg_file_name"]) for record in cityscapes]
    preds = [predict(record).argmax(dim=0).numpy() for record in cityscapes]
    expected = sem_seg_oracle(gts, preds, CLASSES)
    assert np.isnan(expected["IoU-train"]) and 20 < expected["mIoU"] < 90
    assert results["sem_seg"].keys() == expected.keys()
    # The real detectron2's Boundary IoU overflows uint8 above 15 classes: see the next test
    same(*({k: v for k, v in r.items() if "B" not in k} for r in (results["sem_seg"], expected)))

    stored = json.loads((output / "sem_seg_predictions.json").read_text())
    first = predict(cityscapes[0]).argmax(dim=0).numpy()
    painted = np.full(SIZE, -1)
    for record in stored:
        if record["file_name"] == cityscapes[0]["file_name"]:
            painted[mask_util.decode(record["segmentation"]) > 0] = record["category_id"]
    np.testing.assert_array_equal(painted, first)
    assert (output / "sem_seg_evaluation.pth").is_file()


def test_sem_seg_evaluator_measures_boundaries(cityscapes):
    def merge(ids):  # 19 classes -> 5, 255 stays
        return np.where(ids == 255, 255, ids // 4)

    MetadataCatalog.remove(NAME)
    MetadataCatalog.get(NAME).set(stuff_classes=CLASSES[:5], ignore_label=255)
    evaluator = SemSegEvaluator(NAME, sem_seg_loading_fn=lambda path, dtype: merge(read(path)))
    evaluator.reset()
    preds = [merge(predict(record).argmax(dim=0).numpy()) for record in cityscapes]
    for record, pred in zip(cityscapes, preds):
        scores = nn.functional.one_hot(torch.from_numpy(pred), 5).permute(2, 0, 1)
        evaluator.process([record], [{"sem_seg": scores}])
    gts = [merge(read(record["sem_seg_file_name"])) for record in cityscapes]
    same(evaluator.evaluate()["sem_seg"], sem_seg_oracle(gts, preds, CLASSES[:5]))


def test_sem_seg_evaluator_writes_dataset_ids(cityscapes, tmp_path):
    ids = {label.id: label.trainId for label in EVALUATED}
    MetadataCatalog.get(NAME).stuff_dataset_id_to_contiguous_id = ids
    evaluator = SemSegEvaluator(NAME, distributed=False)
    records = evaluator.encode_json_sem_seg(np.array([[0, 0], [18, 18]]), "a.png")
    assert [record["category_id"] for record in records] == [7, 33]
    assert [record["segmentation"]["size"] for record in records] == [[2, 2]] * 2


def test_sem_seg_evaluator_ignores_and_loads_as_told(cityscapes):
    evaluator = SemSegEvaluator(
        NAME,
        ignore_label=0,
        sem_seg_loading_fn=lambda path, dtype: np.zeros((2, 3), dtype=dtype),
    )
    evaluator.reset()
    evaluator.process(cityscapes[:1], [{"sem_seg": torch.zeros(19, 2, 3)}])
    with np.errstate(all="ignore"):  # nothing is left to divide by
        assert np.isnan(evaluator.evaluate()["sem_seg"]["mIoU"])


@pytest.mark.parametrize("size", [(10, 10), SIZE])
def test_sem_seg_evaluator_refuses_what_does_not_fit(cityscapes, size):
    labels_outside = np.full(SIZE, 1000)
    evaluator = SemSegEvaluator(NAME, sem_seg_loading_fn=lambda path, dtype: labels_outside.copy())
    evaluator.reset()
    with pytest.raises(ValueError):
        evaluator.process(cityscapes[:1], [{"sem_seg": torch.zeros(19, *size)}])


def test_cityscapes_evaluator_agrees_with_the_benchmark(cityscapes):
    results = evaluate(CityscapesSemSegEvaluator(NAME), cityscapes)
    assert list(results) == ["sem_seg"]
    same(results["sem_seg"], cityscapes_oracle(cityscapes))


def test_cityscapes_evaluator_writes_label_ids_and_cleans_up(cityscapes):
    evaluator = CityscapesSemSegEvaluator(NAME)
    evaluator.reset()
    for record in cityscapes:
        evaluator.process([record], [{"sem_seg": predict(record)}])
    folder = Path(evaluator._temp_dir)
    written = sorted(folder.glob("*_pred.png"))
    assert len(written) == 4
    found = {label.id for label in EVALUATED}.issuperset(np.unique(read(written[0])))
    assert found and evaluator.evaluate() is not None
    assert not folder.exists()


def test_cityscapes_evaluator_misses_files(cityscapes, tmp_path):
    with pytest.raises((SystemExit, FileNotFoundError)):  # a ground truth without prediction
        evaluate(CityscapesSemSegEvaluator(NAME), cityscapes[:3])
    MetadataCatalog.get(NAME).__dict__["gt_dir"] = str(tmp_path / "nowhere")
    with pytest.raises((AssertionError, FileNotFoundError)):
        evaluate(CityscapesSemSegEvaluator(NAME), cityscapes)


def evaluate_in_process(rank, root):
    """Rank 0 has one image, rank 1 three."""
    make_cityscapesscripts_usable()
    dist.init_process_group("gloo", f"file://{root}/rendezvous", world_size=2, rank=rank)
    comm.create_local_process_group(2)
    records = register(root)
    mine = records[:1] if rank == 0 else records[1:]
    results = {
        evaluator.__name__: evaluate(evaluator(NAME), mine)
        for evaluator in (SemSegEvaluator, CityscapesSemSegEvaluator)
    }
    torch.save(results, root / f"results{rank}.pth")
    dist.barrier()
    dist.destroy_process_group()


def test_two_processes_agree_with_one(cityscapes, tmp_path):
    mp.spawn(evaluate_in_process, args=(tmp_path,), nprocs=2)
    results, others = (
        torch.load(tmp_path / f"results{rank}.pth", weights_only=False) for rank in (0, 1)
    )
    assert others == {"SemSegEvaluator": None, "CityscapesSemSegEvaluator": None}
    for evaluator in (SemSegEvaluator, CityscapesSemSegEvaluator):
        alone = evaluate(evaluator(NAME), cityscapes)
        same(results[evaluator.__name__]["sem_seg"], alone["sem_seg"])
