"""COCO's average precision of boxes and masks (Lin et al. 2014), by one of two judges.

T IoU thresholds, R recalls, K categories, A ranges of areas.
"""

import contextlib
import functools
import io
import logging
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

try:
    import hotcoco
except ImportError:  # of some platforms there is none
    hotcoco = None

logger = logging.getLogger(__name__)

MAX_DETECTIONS = 100  # of an image and category, those with the highest scores

# metric -> (IoU threshold, None for the mean over all; areas as COCOeval names them)
METRICS = {
    "AP": (None, "all"),
    "AP50": (0.5, "all"),
    "AP75": (0.75, "all"),
    "APs": (None, "small"),
    "APm": (None, "medium"),
    "APl": (None, "large"),
}
# task -> what of an annotation it compares. A result may have nothing else: with a box beside its
# mask, COCO would take the box's area for the mask's.
SHAPES = {"bbox": "bbox", "segm": "segmentation"}


class Judge(NamedTuple):
    """A library with pycocotools' two classes."""

    name: str
    dataset: type
    evaluation: type


PYCOCOTOOLS = Judge("pycocotools", COCO, COCOeval)


def find_judge(fast: bool) -> Judge:
    """hotcoco, whose numbers are pycocotools', where it can be imported; else pycocotools."""
    if not fast:
        return PYCOCOTOOLS
    if hotcoco is None:
        _say_that_it_takes_longer()
        return PYCOCOTOOLS
    return Judge("hotcoco", hotcoco.COCO, hotcoco.COCOeval)


@functools.cache  # once
def _say_that_it_takes_longer() -> None:
    logger.info("AP is judged by pycocotools, and takes longer: hotcoco cannot be imported")


def check_truth(truth: dict, source: str) -> None:
    """
    Raises:
        ValueError: what is in COCO's format, and comes from `source`, lacks what AP needs.
    """
    if not isinstance(truth, dict) or "images" not in truth:
        raise ValueError(f"{source}: no images in it; give a JSON in COCO's format of instances")
    if not truth.get("categories"):
        raise ValueError(f"{source}: no categories in it; list the id and name of each")
    for annotation in truth.get("annotations", ()):
        missing = {"image_id", "category_id", "area"} - annotation.keys()
        if missing:
            raise ValueError(
                f"{source}: the annotation {annotation.get('id')} has no {min(missing)}, which AP "
                "needs; add it"
            )


def average_precision(
    truth: dict,
    results: Sequence[dict],
    task: str,
    *,
    judge: Judge | None = None,
    img_ids: Iterable[int | str] | None = None,
    max_detections: int = MAX_DETECTIONS,
    of_each: bool = True,
) -> dict[str, float]:
    """AP, AP50, AP75, AP by size, and of several categories AP-NAME of each; in percent.

    NaN where the truth has nothing to measure. Without any result all of the first are NaN and
    the categories are left out, as COCOEvaluator does.

    Args:
        truth: what a JSON in COCO's format holds. Ids of images and categories may be numbers or
            text; those of annotations are not read, because pycocotools takes an object of the id
            0 for one that is never found.
        results: dicts of image_id, category_id, score, and bbox or segmentation.
        task: "bbox" or "segm".
        judge: None: the fast one.
        img_ids: only these images.
        of_each: also of each category.

    Raises:
        ValueError: an annotation has no bbox or segmentation, or a result is for an image that
            the truth does not have.
    """
    judge = judge or find_judge(fast=True)
    # Numbers, for hotcoco; in order, because of equal scores those of the first image come first.
    images = _places(image["id"] for image in truth["images"])
    categories = _places(category["id"] for category in truth["categories"])
    shape = SHAPES[task]
    objects = [
        {
            "id": number,
            "image_id": images[a["image_id"]],
            "category_id": categories[a["category_id"]],
            "area": a["area"],
            "iscrowd": a.get("iscrowd", 0),
            shape: _of_annotation(a, shape),
        }
        for number, a in enumerate(truth["annotations"], start=1)
        if a["image_id"] in images and a["category_id"] in categories
    ]
    found = [
        {
            "image_id": _known(images, result["image_id"]),
            "category_id": categories[result["category_id"]],
            "score": _rank(result["score"]),
            shape: result[shape],
        }
        for result in results
        if result["category_id"] in categories
    ]
    if not found:
        return dict.fromkeys(METRICS, np.nan)
    dataset = judge.dataset()
    with contextlib.redirect_stdout(io.StringIO()):
        dataset.dataset = {
            "images": [{**image, "id": images[image["id"]]} for image in truth["images"]],
            "annotations": objects,
            "categories": [{"id": place, "name": str(i)} for i, place in categories.items()],
        }
        dataset.createIndex()
        evaluation = judge.evaluation(dataset, dataset.loadRes(found), task)
        evaluation.params.maxDets = [max_detections]
        if img_ids is not None:
            evaluation.params.imgIds = [images[i] for i in img_ids]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][..., -1]  # (T,R,K,A)
    thresholds, areas = np.array(evaluation.params.iouThrs), list(evaluation.params.areaRngLbl)
    metrics = {}
    for name, (threshold, area) in METRICS.items():
        chosen = slice(None) if threshold is None else np.isclose(thresholds, threshold)
        metrics[name] = _mean_percent(precision[chosen, :, :, areas.index(area)])
    if of_each and len(categories) > 1:
        names = {category["id"]: category["name"] for category in truth["categories"]}
        of_category = np.moveaxis(precision[..., areas.index("all")], 2, 0)  # (K,T,R)
        for category, values in zip(categories, of_category, strict=True):
            metrics[f"AP-{names[category]}"] = _mean_percent(values)
    return metrics


def _places(ids: Iterable[int | str]) -> dict[int | str, int]:
    return {i: place for place, i in enumerate(sorted(set(ids)), start=1)}


def _of_annotation(annotation: dict, shape: str) -> Any:
    if shape not in annotation:
        raise ValueError(
            f"the annotation {annotation.get('id')} of the ground truth has no {shape}, which AP "
            "needs; add it"
        )
    return annotation[shape]


def _known(images: dict[int | str, int], image_id: int | str) -> int:
    if image_id not in images:
        raise ValueError(
            f"a result is for the image {image_id}, which the ground truth does not have; evaluate "
            "predictions for this dataset"
        )
    return images[image_id]


def _rank(score: float) -> float:
    """pycocotools takes what is no number for the lowest score; hotcoco refuses it."""
    return score if score == score else -np.inf


def _mean_percent(precision: np.ndarray) -> float:
    """100 times the mean of what is there; -1 stands for what is not."""
    precision = precision[precision > -1]
    return 100 * float(precision.mean()) if precision.size else np.nan
