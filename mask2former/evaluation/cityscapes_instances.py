"""Cityscapes' own scores for instance segmentation, with cityscapesscripts' numbers.

Its script reads a file for every predicted mask, and compares it with one true instance after the
other. Here the masks stay where the model made them, and an image is one table of shared pixels.

N predictions, I regions of the ground truth: each object, each group, each class of stuff.
"""

import glob
import logging
import os
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from cityscapesscripts.helpers.labels import labels, name2label
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Instances
from detectron2.utils import comm
from detectron2.utils.logger import create_small_table
from torch import Tensor
from torch.nn import functional as F

from mask2former.evaluation.cityscapes import LABEL_DIVISOR, NUM_LABELS, ground_truth_file
from mask2former.evaluation.read_ahead import ReadAhead
from mask2former.files import read_numbers
from mask2former.layers.packed_masks import PackedMasks

logger = logging.getLogger(__name__)

THINGS = [label.name for label in labels if label.hasInstances and not label.ignoreInEval]
_VOID_IDS = [label.id for label in labels if label.ignoreInEval]
_THING_OF_LABEL = np.full(NUM_LABELS, -1)
_THING_OF_LABEL[[name2label[name].id for name in THINGS]] = range(len(THINGS))

# cityscapesscripts' `overlaps`, which an IoU has to exceed, and the first of its `minRegionSizes`
OVERLAPS = np.arange(0.5, 1.0, 0.05)
MIN_PIXELS = 100  # a smaller object need not be found

_EIGHT_ONES = 0x0101010101010101
_MASKS_AT_ONCE = 8  # their pixels' indices take 64 bytes for each pixel of the image at most

PREDICTION = np.dtype(
    [
        ("thing", np.int64),  # index into THINGS
        ("score", np.float64),
        ("iou", np.float64),  # with the region of its class that it shares most with
        ("object", np.int64),  # that region, if it is an object that has to be found; else -1
        ("ignored", np.float64),  # share of its pixels that cannot be wrong
    ]
)


class Judged(NamedTuple):
    """What is kept of an image: `predictions` (N,) PREDICTION, `num_objects` (8,) of each thing."""

    predictions: np.ndarray
    num_objects: np.ndarray


class CityscapesInstanceEvaluator(DatasetEvaluator):
    """AP, averaged over IoUs of 0.5 to 0.95, and AP50 (Cityscapes paper, sec. 4.3), in percent.

    Ground truth is *_gtFine_instanceIds.png under the metadata's `gt_dir`. Only the images that
    were processed count, each of them once.

    Args:
        dataset_name: its metadata's `thing_classes` are the names of the predicted classes; of
            these only Cityscapes' eight with instances count.

    Raises:
        ValueError: a class is none of Cityscapes'.
    """

    def __init__(self, dataset_name: str) -> None:
        self.gt_dir = MetadataCatalog.get(dataset_name).gt_dir
        names = cityscapes_classes(dataset_name)
        self._thing_of_class = np.array([THINGS.index(n) if n in THINGS else -1 for n in names])
        files = os.path.join(glob.escape(self.gt_dir), "*", "*_gtFine_instanceIds.png")
        self._truth = ReadAhead(sorted(glob.glob(files)), _read_regions)
        self.reset()

    def reset(self) -> None:
        self.judged: dict[str, Judged] = {}  # by the image's file
        self._truth.stop()

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Compare.

        Args:
            inputs: "file_name" of each image.
            outputs: "instances" of each: pred_masks (N,H,W) bool or PackedMasks, on any device,
                pred_classes (N,), scores (N,).

        Raises:
            FileNotFoundError: an image has no ground truth.
            ValueError: its ground truth has another size, or ids that are none; or there is a
                prediction of a class that the dataset does not have.
        """
        for sample, output in zip(inputs, outputs):
            name = sample["file_name"]
            if name not in self.judged:
                (reading,) = self._truth(ground_truth_file(self.gt_dir, name, "instanceIds"))
                self.judged[name] = self._judge(output["instances"], reading.result(), name)

    def _judge(self, instances: Instances, regions: "Regions", name: str) -> Judged:
        size, labels_of_ids = tuple(instances.pred_masks.shape[1:]), label_of(regions.ids)
        if regions.number.shape != size or labels_of_ids.max() >= NUM_LABELS:
            raise ValueError(
                f"{name}: ground truth of shape {regions.number.shape} with ids up to "
                f"{regions.ids.max()} for masks of shape {size}; instance ids are label ids or "
                f"{LABEL_DIVISOR} times as large, in the image's size"
            )
        classes = np.array(instances.pred_classes.tolist(), np.int64)
        num_classes = len(self._thing_of_class)
        outside = classes[(classes < 0) | (classes >= num_classes)]
        if len(outside):
            raise ValueError(
                f"{name}: a prediction of class {outside[0]}, but its dataset has {num_classes} "
                "classes; evaluate a model of its classes"
            )
        scores = np.array(instances.scores.tolist(), np.float64)
        things = self._thing_of_class[classes]
        return judge(things, scores, instances.pred_masks, regions)

    def evaluate(self) -> OrderedDict | None:
        """
        Returns:
            on the main process {"segm": {"AP", "AP50"}}, and "AP-person", "AP50-person" and so on
            for each class, NaN for one without instances.
        """
        self._truth.stop()
        ranks = comm.gather(self.judged)
        if not comm.is_main_process():
            return None
        merged = {name: judged for rank in ranks for name, judged in rank.items()}
        results = average_precision([merged[name] for name in sorted(merged)])
        logger.info("Cityscapes AP in percent:\n%s", create_small_table(results))
        return OrderedDict(segm=results)


def cityscapes_classes(dataset_name: str) -> list[str]:
    """The names of the predicted classes, which are the metadata's `thing_classes`.

    Raises:
        ValueError: one is none of Cityscapes'.
    """
    names = MetadataCatalog.get(dataset_name).thing_classes
    unknown = [name for name in names if name not in name2label]
    if unknown:
        raise ValueError(
            f"{dataset_name}: thing_classes has {unknown[0]!r}, which is no class of "
            "Cityscapes; correct it or set another evaluator_type"
        )
    return names


class Regions(NamedTuple):
    """Of the ground truth of an image; `number` (H,W) int16 is each pixel's index into the others.

    ids, areas: (I,) instance ids as *_gtFine_instanceIds.png has them, in ascending order, and
    their pixels.
    """

    ids: np.ndarray
    areas: np.ndarray
    number: np.ndarray


def regions_of(instance_ids: np.ndarray) -> Regions:
    """Shapes: (H,W), of any integer type"""
    counts = np.bincount(instance_ids.ravel())  # which needs no sort, as np.unique does
    ids = np.flatnonzero(counts)
    number = np.zeros(len(counts), np.int16)
    number[ids] = range(len(ids))
    return Regions(ids, counts[ids], number[instance_ids])


def _read_regions(path: str) -> Regions:
    return regions_of(read_numbers(path, "unpack gtFine completely"))


def label_of(instance_ids: np.ndarray) -> np.ndarray:
    return np.where(instance_ids < LABEL_DIVISOR, instance_ids, instance_ids // LABEL_DIVISOR)


def judge(
    things: np.ndarray, scores: np.ndarray, masks: Tensor | PackedMasks, regions: Regions
) -> Judged:
    """How the predictions of an image and its ground truth lie on one another.

    Args:
        things: (N,) int64, indices into THINGS, -1 for other classes; of these nothing is kept,
            nor of empty masks.
        scores: (N,).
        masks: (N,H,W) bool.
    """
    ids, areas, number = regions
    shared = shared_pixels(masks, number, len(ids))  # (N,I)
    is_group = ids < LABEL_DIVISOR  # or stuff, or void
    thing_of_region = _THING_OF_LABEL[label_of(ids)]
    is_small = areas < MIN_PIXELS
    is_object = (thing_of_region >= 0) & ~is_group & ~is_small

    counted = (things >= 0) & shared.any(1)
    things, scores, shared = things[counted], scores[counted], shared[counted]
    sizes = shared.sum(1)
    of_class = shared * (things[:, None] == thing_of_region)
    ious = of_class / (sizes[:, None] + areas - of_class)
    # Regions do not overlap, so no prediction has an IoU above 0.5 with two of them.
    region = ious.argmax(1)
    predictions = np.empty(len(things), PREDICTION)
    predictions["thing"] = things
    predictions["score"] = scores
    predictions["iou"] = ious.max(1)
    predictions["object"] = np.where(is_object[region], region, -1)
    # A small group counts twice, as in cityscapesscripts.
    not_wrong = shared @ np.isin(ids, _VOID_IDS) + of_class @ (is_group.astype(int) + is_small)
    predictions["ignored"] = not_wrong / sizes
    return Judged(predictions, np.bincount(thing_of_region[is_object], minlength=len(THINGS)))


def shared_pixels(masks: Tensor | PackedMasks, number: np.ndarray, num_regions: int) -> np.ndarray:
    """How many pixels of each mask lie in each region; `number` says which a pixel is of.

    Pixels are counted by eights: most of these are of one region, and most masks have none there.

    Shapes: (N,H,W) bool, (H,W) int16 -> (N,I) int64
    """
    _, height, width = masks.shape
    eights = np.pad(number, ((0, 0), (0, -width % 8))).reshape(-1, 8)
    eights = torch.from_numpy(eights).to(masks.device)  # (E,8), E for an image
    lowest, highest = eights.amin(1), eights.amax(1)
    region = torch.where(lowest == highest, lowest, num_regions)  # or several
    parts = [np.zeros((0, num_regions), np.int64)]
    for start in range(0, len(masks), _MASKS_AT_ONCE):
        some = masks[start : start + _MASKS_AT_ONCE]
        row, column, words = _eights_with_pixels(some)  # (M,) each
        mask = row // height
        eight = (row - mask * height) * (len(eights) // height) + column
        cell = mask * (num_regions + 1)  # the first of a mask's in the table
        regions = region[eight]
        table = torch.zeros(len(some) * (num_regions + 1), dtype=torch.int64, device=masks.device)
        table.index_add_(0, cell + regions, (words * _EIGHT_ONES) >> 56)  # a sum of bytes
        several = (regions == num_regions).nonzero()[:, 0]
        cells = cell[several, None] + eights[eight[several]]  # (.,8)
        table += torch.bincount(cells[_pixels(words[several])], minlength=len(table))
        parts.append(table.view(-1, num_regions + 1)[:, :-1].cpu().numpy())
    return np.concatenate(parts)


def _eights_with_pixels(masks: Tensor | PackedMasks) -> tuple[Tensor, Tensor, Tensor]:
    """The eights of pixels in a row, of (N,H,W) masks, that are not all background.

    Returns:
        (M,) row of all masks, (M,) which eight of the row, (M,) int64 with a byte for each pixel.
    """
    is_packed = isinstance(masks, PackedMasks)
    rows = masks.bits.flatten(0, 1) if is_packed else _words(masks).flatten(0, 1)
    # Most rows have none, and to find these takes a quarter of the time that `nonzero` takes.
    used = rows.amax(1).nonzero()[:, 0]
    some = rows[used].flatten()
    found = some.nonzero()[:, 0]
    row = found // rows.shape[1]
    column = found - row * rows.shape[1]
    words = some[found]
    if is_packed:
        words = _words(PackedMasks(words[:, None, None], 8).tensor).flatten()
    return used[row], column, words


def _words(masks: Tensor) -> Tensor:
    """Shapes: (N,H,W) bool -> (N,H,ceil(W/8)) int64, a byte for each pixel"""
    if masks.shape[2] % 8:
        masks = F.pad(masks, (0, -masks.shape[2] % 8))
    return masks.bool().contiguous().view(torch.int64)


def _pixels(words: Tensor) -> Tensor:
    """Shapes: (M,) int64, of `_words` -> (M,8) bool"""
    return words.view(torch.bool).view(-1, 8)


def average_precision(images: Sequence[Judged]) -> dict[str, float]:
    """In percent AP and AP50, and AP-NAME and AP50-NAME of each class; NaN without objects."""
    predictions = np.concatenate([np.zeros(0, PREDICTION), *(i.predictions for i in images)])
    num_objects = sum((i.num_objects for i in images), np.zeros(len(THINGS), np.int64))
    # An object's number is that of a region of its image: now one of all images.
    image = np.repeat(np.arange(len(images)), [len(i.predictions) for i in images])
    is_object = predictions["object"] >= 0
    predictions["object"][is_object] += LABEL_DIVISOR * NUM_LABELS * image[is_object]
    table = np.array(  # (8,10)
        [
            _average_precisions(predictions[predictions["thing"] == thing], num)
            for thing, num in enumerate(num_objects)
        ]
    )
    measured = table[num_objects > 0]
    overall = measured if len(measured) else np.full((1, len(OVERLAPS)), np.nan)
    results = {"AP": overall.mean(), "AP50": overall[:, 0].mean()}
    results |= {f"AP-{name}": row.mean() for name, row in zip(THINGS, table)}
    results |= {f"AP50-{name}": row[0] for name, row in zip(THINGS, table)}
    return {name: 100 * float(value) for name, value in results.items()}


def _average_precisions(predictions: np.ndarray, num_objects: int) -> np.ndarray:
    """(P,) PREDICTION of one class -> (10,), by OVERLAPS."""
    if num_objects == 0:
        return np.full(len(OVERLAPS), np.nan)
    # The predictions of an object one after the other, the best one last.
    predictions = predictions[np.lexsort((predictions["score"], predictions["object"]))]
    result = []
    for overlap in OVERLAPS:
        is_hit = predictions["iou"] > overlap
        found = predictions[is_hit & (predictions["object"] >= 0)]
        is_best = np.append(found["object"][1:] != found["object"][:-1], True)[: len(found)]
        wrong = predictions[~is_hit & (predictions["ignored"] <= overlap)]
        scores = np.concatenate([found["score"], wrong["score"]])
        is_right = np.concatenate([is_best, np.zeros(len(wrong), bool)])
        result.append(area_under_curve(scores, is_right, num_objects))
    return np.array(result)


def area_under_curve(scores: np.ndarray, is_right: np.ndarray, num_objects: int) -> float:
    """Of precision over recall, by trapezoids, from precision 1 at recall 0; 0 if P = 0.

    Shapes: (P,), (P,) bool
    """
    order = np.argsort(-scores)
    scores = scores[order]
    # Predictions that score the same are taken all at once.
    taken = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)[: len(scores)]) + 1
    num_right = np.append(0, is_right[order].cumsum())[taken]
    precision = np.append(1.0, num_right / taken)
    recall = np.append(0.0, num_right / num_objects)
    return float(np.diff(recall) @ (precision[1:] + precision[:-1]) / 2)
