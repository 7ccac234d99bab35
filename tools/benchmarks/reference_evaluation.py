"""The tools that others judge with, as they are meant to be used: on files, in one process.

All scores are in percent, by the names that our evaluators give them.
"""

import contextlib
import functools
import io
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from cityscapesscripts.evaluation import evalInstanceLevelSemanticLabeling as instance_level
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as pixel_level
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mask2former.evaluation import reference

OFFSET = 256**3  # above any segment id

# True where cityscapesscripts counts pixels by an extension in C, which it has to be built with
HAS_C_EXTENSION = pixel_level.CSUPPORT


def cityscapes_pixels(files: Sequence[Path], truth: Sequence[Path]) -> dict[str, float]:
    """cityscapesscripts on PNGs of label ids."""
    return reference.pixel_scores([str(f) for f in files], [str(f) for f in truth])


def cityscapes_instances(files: Sequence[Path], truth: Sequence[Path]) -> dict[str, float]:
    """cityscapesscripts on a text file for each image, and a PNG for each mask.

    What it finds in the ground truth is kept for the next time, as it does itself, in a file.
    """
    names = tuple(str(f) for f in truth)
    folder = files[0].parent
    return reference.instance_scores([str(f) for f in files], names, _objects(names), folder)


@functools.cache
def _objects(truth: tuple[str, ...]) -> dict:
    return instance_level.instances2dict(list(truth))


def panoptic_quality(truth_json: Path, predicted_json: Path) -> dict[str, float]:
    """What the Panoptic API does with PNGs: all pixels of an image are sorted, then segments meet.

    Args:
        truth_json, predicted_json: "annotations"; in the folders of their names are the PNGs.
    """
    truth = json.loads(truth_json.read_text("utf-8"))
    predictions = json.loads(predicted_json.read_text("utf-8"))["annotations"]
    prediction_of = {prediction["image_id"]: prediction for prediction in predictions}
    counts = defaultdict(lambda: {"iou": 0.0, "tp": 0, "fp": 0, "fn": 0})
    for image in truth["annotations"]:
        prediction = prediction_of[image["image_id"]]
        true_ids = _read_ids(truth_json.with_suffix("") / image["file_name"])
        ids = _read_ids(predicted_json.with_suffix("") / prediction["file_name"])
        found = {segment["id"]: segment for segment in prediction["segments_info"]}
        for segment_id, area in zip(*np.unique(ids, return_counts=True)):
            if segment_id:
                found[int(segment_id)]["area"] = int(area)
        pairs, pixels = np.unique(true_ids * OFFSET + ids, return_counts=True)
        common = {divmod(int(pair), OFFSET): int(n) for pair, n in zip(pairs, pixels)}
        _count(counts, {s["id"]: s for s in image["segments_info"]}, found, common)
    return _means(counts, truth["categories"])


def _read_ids(path: Path) -> np.ndarray:  # (H,W) int64
    with Image.open(path) as image:
        red, green, blue = np.moveaxis(np.asarray(image).astype(np.int64), -1, 0)
    return red + 256 * green + 256 * 256 * blue


def _count(counts: dict, truth: dict, found: dict, common: dict) -> None:
    matched_truth, matched = set(), set()
    for (true_id, segment_id), pixels in common.items():
        if true_id not in truth or segment_id not in found or truth[true_id]["iscrowd"]:
            continue
        category = truth[true_id]["category_id"]
        if category != found[segment_id]["category_id"]:
            continue
        union = truth[true_id]["area"] + found[segment_id]["area"] - pixels
        iou = pixels / (union - common.get((0, segment_id), 0))
        if iou > 0.5:
            counts[category]["iou"] += iou
            counts[category]["tp"] += 1
            matched_truth.add(true_id)
            matched.add(segment_id)
    crowds = {}
    for true_id, segment in truth.items():
        if segment["iscrowd"]:
            crowds[segment["category_id"]] = true_id
        elif true_id not in matched_truth:
            counts[segment["category_id"]]["fn"] += 1
    for segment_id, segment in found.items():
        if segment_id not in matched:
            excused = common.get((0, segment_id), 0)
            if segment["category_id"] in crowds:
                excused += common.get((crowds[segment["category_id"]], segment_id), 0)
            counts[segment["category_id"]]["fp"] += excused / segment["area"] <= 0.5


def _means(counts: dict, categories: list[dict]) -> dict[str, float]:
    results = {}
    for suffix, chosen in (("", (0, 1)), ("_th", (1,)), ("_st", (0,))):
        scores = []
        for category in categories:
            n = counts[category["id"]]
            weight = n["tp"] + (n["fp"] + n["fn"]) / 2
            if weight and category["isthing"] in chosen:
                scores.append((n["iou"] / weight, n["iou"] / max(n["tp"], 1), n["tp"] / weight))
        means = 100 * np.mean(scores, 0) if scores else [np.nan] * 3
        results |= {f"{name}{suffix}": float(x) for name, x in zip(("PQ", "SQ", "RQ"), means)}
    return results


def coco_masks(truth: dict, results: Sequence[dict]) -> dict[str, float]:
    """pycocotools on a list of results with run lengths."""
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = COCO()
        dataset.dataset = {**truth, "annotations": [dict(a) for a in truth["annotations"]]}
        dataset.createIndex()
        evaluation = COCOeval(dataset, dataset.loadRes([dict(r) for r in results]), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    names = ("AP", "AP50", "AP75", "APs", "APm", "APl")
    stats = zip(names, evaluation.stats.tolist())
    return {name: 100 * value if value > -1 else np.nan for name, value in stats}
