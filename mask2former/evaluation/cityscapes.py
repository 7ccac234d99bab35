"""Cityscapes' own scores for semantic segmentation, without a file for each prediction.

Pixels are counted on the model's device. The scores are cityscapesscripts' functions of the counts.
"""

import logging
import os
from collections import OrderedDict
from functools import partial

import numpy as np
import torch
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as scores
from cityscapesscripts.helpers.labels import category2labels, id2label, trainId2label
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils.logger import create_small_table
from torch import Tensor

from mask2former.evaluation.confusion import (
    check_sizes,
    class_scores,
    label_outside,
    pair_counts,
    predicted_labels,
    totals_of,
)
from mask2former.evaluation.processes import sum_over_processes
from mask2former.evaluation.read_ahead import ReadAhead
from mask2former.files import read_numbers

logger = logging.getLogger(__name__)

IMAGE_SUFFIX = "_leftImg8bit.png"
NUM_LABELS = max(id2label) + 1  # label ids are 0..33, and -1 for number plates, which no file has
LABEL_DIVISOR = 1000  # instance id = label id * LABEL_DIVISOR + number; a group: label id
# What an image's ground truth files hold, and how many different values that may be
KINDS = {"labelIds": NUM_LABELS, "instanceIds": NUM_LABELS * LABEL_DIVISOR}
EVALUATED = [label.id for label in id2label.values() if not label.ignoreInEval]
NUM_CLASSES = len(EVALUATED)
LABEL_ID = np.array([trainId2label[i].id for i in range(NUM_CLASSES)])  # of each train id
CLASS_NAMES = [trainId2label[i].name for i in range(NUM_CLASSES)]
_CATEGORY_ID = np.array([id2label[i].categoryId for i in range(NUM_LABELS)])
_AVERAGE_SIZE = np.array(
    [scores.args.avgClassSize.get(id2label[i].name, 0.0) for i in range(NUM_LABELS)]
)


class CityscapesSemSegEvaluator(DatasetEvaluator):
    """IoU and iIoU over classes and categories (Cityscapes paper, sec. 4.2), in percent.

    Ground truth is *_gtFine_labelIds.png and *_gtFine_instanceIds.png under the metadata's
    `gt_dir`. Only the images that were processed count, each of them once in a process. What is
    kept is one number a pair of labels.

    Args:
        with_pixels: also give "sem_seg_pixel", what SemSegEvaluator gives of the files
            *_gtFine_labelTrainIds.png. They are drawn from the same polygons in the same order as
            the label ids, so that the same counts tell it.

    Raises:
        ValueError: `with_pixels`, and the dataset's classes are not those of the train ids.
    """

    def __init__(self, dataset_name: str, with_pixels: bool = False) -> None:
        metadata = MetadataCatalog.get(dataset_name)
        self._dataset_name = dataset_name
        self.gt_dir = metadata.gt_dir
        if with_pixels and list(metadata.stuff_classes) != CLASS_NAMES:
            raise ValueError(
                f"{dataset_name}: its stuff_classes are not Cityscapes' {NUM_CLASSES} classes in "
                "the order of their train ids, and label ids can tell of no others; correct them "
                'or set evaluator_type "sem_seg"'
            )
        self._with_pixels = with_pixels
        names = [sample["file_name"] for sample in DatasetCatalog.get(dataset_name)]
        reads = [partial(read_ground_truth, self.gt_dir, kind=kind) for kind in KINDS]
        self._truth = ReadAhead(names, *reads)
        self.reset()

    def reset(self) -> None:
        self._confusion = np.zeros((NUM_LABELS, NUM_CLASSES), np.int64)
        self._hits = np.zeros((NUM_LABELS, 4))  # see `instance_hits`
        self._seen: set[str] = set()
        self._truth.stop()

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Count.

        Args:
            inputs: "file_name" of each image.
            outputs: "sem_seg" of each, scores (19,H,W) in the order of the train ids, or train ids
                (H,W).

        Raises:
            FileNotFoundError: an image has no ground truth.
            ValueError: its size or labels do not fit.
        """
        for sample, output in zip(inputs, outputs):
            if sample["file_name"] not in self._seen:
                self._count(sample["file_name"], output["sem_seg"])

    def _count(self, file_name: str, sem_seg: Tensor) -> None:
        reading = self._truth(file_name)
        prediction = predicted_labels(sem_seg)  # (H,W), while they are read
        _check_train_ids(prediction, file_name)
        of_labels, of_instances = (
            pair_counts(
                _on_device(truth.result(), prediction, file_name, kind),
                prediction,
                KINDS[kind],
                NUM_CLASSES,
            )
            for truth, kind in zip(reading, KINDS)
        )  # (34,19), (34000,19)
        self._confusion += of_labels.cpu().numpy()
        self._hits += instance_hits(of_instances)
        self._seen.add(file_name)

    def evaluate(self) -> OrderedDict | None:
        """
        Returns:
            on the main process {"sem_seg": see `cityscapes_scores`}, and "sem_seg_pixel" if it was
            asked for, see `class_scores`.
        """
        self._truth.stop()
        sums = [self._confusion, self._hits]
        merged = sum_over_processes(sums, self._seen, self._dataset_name)
        if merged is None:
            return None
        (confusion, hits), _ = merged
        results = OrderedDict(sem_seg=cityscapes_scores(confusion, hits))
        logger.info("Cityscapes scores in percent:\n%s", create_small_table(results["sem_seg"]))
        if self._with_pixels:
            counts = totals_of(torch.from_numpy(confusion[LABEL_ID])).numpy()
            results["sem_seg_pixel"] = class_scores(counts, CLASS_NAMES)
        return results


def read_ground_truth(gt_dir: str, image_file: str, kind: str) -> np.ndarray:
    """An image's "labelIds" or "instanceIds" from a folder of cities, (H,W).

    Raises:
        FileNotFoundError: there are none.
        ValueError: they are no whole picture, or one of colours.
    """
    path = ground_truth_file(gt_dir, image_file, kind)
    advice = f"unpack gtFine completely, {image_file} cannot be evaluated without it"
    return read_numbers(path, advice)


def ground_truth_file(gt_dir: str, image_file: str, kind: str) -> str:
    folder, name = os.path.split(image_file)
    name = f"{name.removesuffix(IMAGE_SUFFIX)}_gtFine_{kind}.png"
    return os.path.join(gt_dir, os.path.basename(folder), name)


def instance_hits(counts: Tensor) -> np.ndarray:
    """Pixels of the instances of each label that were hit and missed.

    An instance counts as much as one of its class's average size. Groups are no instances.

    Args:
        counts: (34000,19) pixels by instance id and predicted train id. Most ids are nowhere, and
            yet a row for each takes less time than looking for those that are somewhere.

    Returns:
        (34,4) float64: hits and misses of the class, hits and misses of its category.
    """
    ids = counts.sum(1).nonzero().flatten()
    ids = ids[ids > LABEL_DIVISOR]  # of I instances
    found = counts[ids].cpu().numpy()  # (I,19)
    label = ids.cpu().numpy() // LABEL_DIVISOR
    hits = (found * (label[:, None] == LABEL_ID)).sum(1)
    category = _CATEGORY_ID[label]
    category_hits = (found * (category[:, None] == _CATEGORY_ID[LABEL_ID])).sum(1)
    sizes = found.sum(1)
    weighted = np.stack([hits, sizes - hits, category_hits, sizes - category_hits], 1)  # (I,4)
    totals = np.zeros((NUM_LABELS, 4))
    np.add.at(totals, label, weighted * (_AVERAGE_SIZE[label] / sizes)[:, None])
    return totals


def cityscapes_scores(confusion: np.ndarray, hits: np.ndarray) -> dict[str, float]:
    """In percent IoU, iIoU, IoU_sup, iIoU_sup, and IoU-NAME of each class; NaN without pixels.

    Args:
        confusion: (34,19) pixels by label id and predicted train id.
        hits: (34,4), see `instance_hits`.
    """
    matrix = np.zeros((NUM_LABELS, NUM_LABELS), np.int64)
    matrix[:, LABEL_ID] = confusion
    args = scores.CArgs()
    args.evalLabels = list(range(NUM_LABELS))
    stats = _instance_stats(hits)
    names = {i: id2label[i].name for i in EVALUATED}
    parts = {
        "IoU": {names[i]: scores.getIouScoreForLabel(i, matrix, args) for i in names},
        "iIoU": {
            names[i]: scores.getInstanceIouScoreForLabel(i, matrix, stats, args) for i in names
        },
        "IoU_sup": {c: scores.getIouScoreForCategory(c, matrix, args) for c in category2labels},
        "iIoU_sup": {
            c: scores.getInstanceIouScoreForCategory(c, matrix, stats, args)
            for c in category2labels
        },
    }
    means = {key: 100 * scores.getScoreAverage(part, args) for key, part in parts.items()}
    return means | {f"IoU-{name}": 100 * value for name, value in parts["IoU"].items()}


def _instance_stats(hits: np.ndarray) -> dict:
    """`hits` as cityscapesscripts keeps them."""
    stats = scores.generateInstanceStats(scores.args)
    for label in (id2label[i] for i in EVALUATED):
        row = hits[label.id]
        if label.name in stats["classes"]:
            stats["classes"][label.name] |= {"tpWeighted": row[0], "fnWeighted": row[1]}
        if label.category in stats["categories"]:
            stats["categories"][label.category]["tpWeighted"] += row[2]
            stats["categories"][label.category]["fnWeighted"] += row[3]
    return stats


def _check_train_ids(prediction: Tensor, file_name: str) -> None:
    outside = label_outside(prediction, NUM_CLASSES)
    if outside is not None:
        raise ValueError(
            f"the prediction for {file_name} has label {outside}, and Cityscapes' train ids are "
            f"0..{NUM_CLASSES - 1}; train with these classes or set another evaluator_type"
        )


def _on_device(truth: np.ndarray, prediction: Tensor, file_name: str, kind: str) -> Tensor:
    """What a file holds, where the prediction for it is.

    Raises:
        ValueError: it has another size than the prediction, or values that are no ids.
    """
    check_sizes(prediction, truth, file_name, kind)
    values = truth if truth.dtype == np.uint8 else truth.astype(np.int32)
    labels = torch.from_numpy(values).to(prediction.device)
    outside = label_outside(labels, KINDS[kind])
    if outside is not None:
        raise ValueError(
            f"{file_name}: its {kind} have {outside}, and Cityscapes' are 0..{KINDS[kind] - 1}; "
            "unpack gtFine again"
        )
    return labels
