"""Panoptic Quality (Kirillov et al. 2019, sec. 4) of PNGs with segment ids and their JSON.

A predicted and a true segment of one category match if their IoU is above one half; no segment has
two matches. Of a category, with void pixels left out of every union,

    SQ = sum of matched IoUs / TP    RQ = TP / (TP + FP / 2 + FN / 2)    PQ = SQ * RQ
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .utils import rgb2id

OFFSET = 256**3  # above any id
VOID = 0  # the id of pixels without a segment

Annotation = dict  # of one image: "image_id", "file_name", "segments_info"
Overlaps = dict[tuple[int, int], int]  # (true id, predicted id) -> pixels that have both

_MAX_THREADS = 8


@dataclass
class PQStatCat:
    """What was counted of one category: true and false positives, false negatives, sum of IoUs."""

    iou: float = 0.0
    tp: int = 0
    fp: int = 0
    fn: int = 0

    def __iadd__(self, pq_stat_cat: PQStatCat) -> PQStatCat:
        self.iou += pq_stat_cat.iou
        self.tp += pq_stat_cat.tp
        self.fp += pq_stat_cat.fp
        self.fn += pq_stat_cat.fn
        return self

    def scores(self) -> dict[str, float]:
        """ "pq", "sq" and "rq"; zero where there is no match."""
        weight = self.tp + 0.5 * self.fp + 0.5 * self.fn
        return {
            "pq": self.iou / weight if self.tp else 0.0,
            "sq": self.iou / self.tp if self.tp else 0.0,
            "rq": self.tp / weight if self.tp else 0.0,
        }


class PQStat:
    """What was counted, by category id."""

    def __init__(self) -> None:
        self.pq_per_cat: defaultdict[int, PQStatCat] = defaultdict(PQStatCat)

    def __getitem__(self, i: int) -> PQStatCat:
        return self.pq_per_cat[i]

    def __iadd__(self, pq_stat: PQStat) -> PQStat:
        for category, counts in pq_stat.pq_per_cat.items():
            self.pq_per_cat[category] += counts
        return self

    def pq_average(
        self, categories: dict[int, dict], isthing: bool | None
    ) -> tuple[dict[str, float], dict[int, dict[str, float]]]:
        """The mean over categories that were seen, and the scores of each.

        Args:
            categories: category id -> {"isthing"}.
            isthing: only things, only stuff, or None for all of them.

        Returns:
            {"pq", "sq", "rq", "n"}, where n categories were seen and the others are NaN if that
            is none; and {"pq", "sq", "rq"} of each category, 0 for one that was not seen.
        """
        chosen = [c for c in categories if isthing in (None, categories[c]["isthing"] == 1)]
        per_class = {c: self[c].scores() for c in chosen}
        seen = [per_class[c] for c in chosen if self[c].tp + self[c].fp + self[c].fn]
        mean = {
            k: sum(s[k] for s in seen) / len(seen) if seen else np.nan for k in ("pq", "sq", "rq")
        }
        return {**mean, "n": len(seen)}, per_class


def pq_compute(
    gt_json_file: str,
    pred_json_file: str,
    gt_folder: str | None = None,
    pred_folder: str | None = None,
) -> dict[str, dict]:
    """Compare the predictions of a file with the ground truth of another.

    Args:
        gt_json_file: "annotations" of each image, and "categories" with "id" and "isthing".
        pred_json_file: "annotations", at least of each image in gt_json_file.
        gt_folder, pred_folder: of the PNGs; None: the JSON files' names without ".json".

    Returns:
        "All", "Things" and "Stuff": {"pq", "sq", "rq", "n"}, see `PQStat.pq_average`; and
        "per_class": {category id: {"pq", "sq", "rq"}}.

    Raises:
        FileNotFoundError: a folder is missing.
        ValueError: an image has no prediction, or JSON and PNG contradict each other.
    """
    with open(gt_json_file, encoding="utf-8") as f:
        truth = json.load(f)
    with open(pred_json_file, encoding="utf-8") as f:
        predictions = {a["image_id"]: a for a in json.load(f)["annotations"]}
    folders = (
        gt_json_file.removesuffix(".json") if gt_folder is None else gt_folder,
        pred_json_file.removesuffix(".json") if pred_folder is None else pred_folder,
    )
    for folder in folders:
        if not os.path.isdir(folder):
            raise FileNotFoundError(f"{folder}: no such folder; it should have the segments' PNGs")
    without = [a["image_id"] for a in truth["annotations"] if a["image_id"] not in predictions]
    if without:
        raise ValueError(
            f"{len(without)} images of {gt_json_file} have no prediction in {pred_json_file} "
            f"(the first: {without[0]}); predict all of them"
        )
    categories = {c["id"]: c for c in truth["categories"]}
    pairs = [(a, predictions[a["image_id"]]) for a in truth["annotations"]]
    counts = pq_compute_multi_core(pairs, *folders, categories)

    results = {}
    for name, isthing in (("All", None), ("Things", True), ("Stuff", False)):
        results[name], per_class = counts.pq_average(categories, isthing)
        if isthing is None:
            results["per_class"] = per_class
    return results


def pq_compute_multi_core(
    matched_annotations_list: Sequence[tuple[Annotation, Annotation]],
    gt_folder: str,
    pred_folder: str,
    categories: dict[int, dict],
) -> PQStat:
    """`pq_compute_single_core` in several threads; the sum does not depend on their number."""
    total = PQStat()
    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as threads:
        for counts in threads.map(
            lambda pair: pq_compute_single_core(0, [pair], gt_folder, pred_folder, categories),
            matched_annotations_list,
        ):
            total += counts
    return total


def pq_compute_single_core(
    proc_id: int,
    annotation_set: Sequence[tuple[Annotation, Annotation]],
    gt_folder: str,
    pred_folder: str,
    categories: dict[int, dict],
) -> PQStat:
    """Count.

    Args:
        proc_id: of no meaning here.
        annotation_set: of each image ground truth and prediction. A true segment may be a crowd
            ("iscrowd"); its "area" is taken from the JSON if it is there.
        categories: those that may be predicted.

    Raises:
        ValueError: JSON and PNG of an image contradict each other.
    """
    total = PQStat()
    for truth, prediction in annotation_set:
        overlaps = _overlaps(
            os.path.join(gt_folder, truth["file_name"]),
            os.path.join(pred_folder, prediction["file_name"]),
        )
        _check_prediction(prediction, overlaps, categories)
        _count_image(total, truth["segments_info"], prediction["segments_info"], overlaps)
    return total


def _overlaps(truth_file: str, prediction_file: str) -> Overlaps:
    truth, predicted = (_read_ids(file) for file in (truth_file, prediction_file))  # (H,W)
    if truth.shape != predicted.shape:
        raise ValueError(
            f"{prediction_file} is of size {predicted.shape}, but its ground truth {truth_file} of "
            f"{truth.shape}; check the dataset's height and width"
        )
    pairs = (OFFSET * truth + predicted).ravel()
    # Few pixels differ from their left neighbour: sorting runs is far faster than sorting pixels.
    starts = np.concatenate([[0], np.flatnonzero(np.diff(pairs)) + 1])
    lengths = np.diff(starts, append=len(pairs))
    found, which = np.unique(pairs[starts], return_inverse=True)
    pixels = np.bincount(which, lengths).astype(np.int64)
    return {divmod(pair, OFFSET): n for pair, n in zip(found.tolist(), pixels.tolist())}


def _read_ids(file: str) -> np.ndarray:  # -> (H,W) int64
    with Image.open(file) as image:
        pixels = np.asarray(image)
    if pixels.ndim != 3 or pixels.dtype != np.uint8:
        raise ValueError(f"{file}: a picture of mode {image.mode}; segment ids are RGB colours")
    return rgb2id(pixels).astype(np.int64)


def _check_prediction(
    prediction: Annotation, overlaps: Overlaps, categories: dict[int, dict]
) -> None:
    name = f"the prediction of image {prediction['image_id']}"
    painted = {predicted for _, predicted in overlaps} - {VOID}
    listed = {s["id"] for s in prediction["segments_info"]} - {VOID}
    if painted != listed:
        raise ValueError(
            f"{name}: its PNG has segments {sorted(painted - listed)} that are not in its JSON, "
            f"which has {sorted(listed - painted)} that are not in the PNG; write both again"
        )
    unknown = {s["category_id"] for s in prediction["segments_info"]} - categories.keys()
    if unknown:
        raise ValueError(
            f"{name} has the category ids {sorted(unknown)}, which the ground truth has not; "
            "predict the ids of its categories"
        )


def _count_image(
    total: PQStat, truths: list[dict], predictions: list[dict], overlaps: Overlaps
) -> None:
    true_areas: defaultdict[int, int] = defaultdict(int)
    areas: defaultdict[int, int] = defaultdict(int)
    for (true_id, predicted_id), pixels in overlaps.items():
        true_areas[true_id] += pixels
        areas[predicted_id] += pixels
    true_by_id = {s["id"]: s for s in truths}
    predicted_by_id = {s["id"]: s for s in predictions}

    matched_truths, matched = set(), set()
    for (true_id, predicted_id), pixels in overlaps.items():
        truth, prediction = true_by_id.get(true_id), predicted_by_id.get(predicted_id)
        if truth is None or prediction is None or truth.get("iscrowd"):
            continue
        if truth["category_id"] != prediction["category_id"]:
            continue
        true_area = truth.get("area", true_areas[true_id])
        union = areas[predicted_id] + true_area - pixels - overlaps.get((VOID, predicted_id), 0)
        iou = pixels / union
        if iou > 0.5:
            counts = total[truth["category_id"]]
            counts.iou += iou
            counts.tp += 1
            matched_truths.add(true_id)
            matched.add(predicted_id)

    crowds = {}  # category -> a crowd of it; of several the last, as in the reference
    for true_id, truth in true_by_id.items():
        if truth.get("iscrowd"):
            crowds[truth["category_id"]] = true_id
        elif true_id not in matched_truths:
            total[truth["category_id"]].fn += 1
    for predicted_id, prediction in predicted_by_id.items():
        if predicted_id in matched:
            continue
        # What lies mostly where nothing, or a crowd of its category, is annotated is not wrong.
        excused = {VOID, crowds.get(prediction["category_id"], VOID)}
        pixels = sum(overlaps.get((true_id, predicted_id), 0) for true_id in excused)
        if pixels <= 0.5 * areas[predicted_id]:
            total[prediction["category_id"]].fp += 1
