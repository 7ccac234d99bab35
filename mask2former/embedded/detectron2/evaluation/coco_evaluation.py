"""Average precision of boxes and masks, by pycocotools.

N number of instances of an image.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import os
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tabulate import tabulate

from detectron2 import _missing_attribute
from detectron2.data import MetadataCatalog
from detectron2.data.datasets.coco import convert_to_coco_json
from detectron2.structures import BoxMode, Instances
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import create_small_table

from .evaluator import DatasetEvaluator

__all__ = ["COCOEvaluator", "instances_to_coco_json"]

# metric -> (IoU threshold, None for the mean over all; areas as COCOeval names them)
_METRICS = {
    "AP": (None, "all"),
    "AP50": (0.5, "all"),
    "AP75": (0.75, "all"),
    "APs": (None, "small"),
    "APm": (None, "medium"),
    "APl": (None, "large"),
}
_TASKS = ("bbox", "segm")
_TABLE_COLUMNS = 6


class COCOEvaluator(DatasetEvaluator):
    """AP, AP50, AP75 and AP by size, of boxes ("bbox") and masks ("segm"), in percent.

    A metric is NaN where the ground truth has nothing to measure it on. Predictions are compared
    with the whole ground truth: an image that was not predicted has its objects missed.

    Args:
        dataset_name: a registered dataset. Its metadata's `json_file` is the ground truth in COCO's
            format; without it, its dicts are converted and written to `output_dir`. Predicted
            classes become category ids by the metadata's `thing_dataset_id_to_contiguous_id`.
        tasks: "bbox", "segm" or both; None: what the predictions have.
        distributed: join the predictions of all processes; else each one evaluates its own.
        output_dir: gets instances_predictions.pth and coco_instances_results.json.
        max_dets_per_image: of an image only the instances with the highest scores; 100 by default.
        use_fast_impl, kpt_oks_sigmas: of no meaning here, where pycocotools computes boxes and
            masks.
        allow_cached_coco: take a converted file that is there already.

    Raises:
        ValueError: neither `json_file` nor `output_dir`, or a task of another kind.
    """

    def __init__(
        self,
        dataset_name: str,
        tasks: Sequence[str] | None = None,
        distributed: bool = True,
        output_dir: str | None = None,
        *,
        max_dets_per_image: int | None = None,
        use_fast_impl: bool = True,
        kpt_oks_sigmas: Sequence[float] = (),
        allow_cached_coco: bool = True,
    ):
        unknown = set(tasks or ()) - set(_TASKS)
        if unknown:
            raise ValueError(
                f"COCOEvaluator has no tasks {sorted(unknown)}; choose from {', '.join(_TASKS)}"
            )
        self._logger = logging.getLogger(__name__)
        self._tasks = tasks
        self._distributed = distributed
        self._output_dir = output_dir
        self._max_dets = [1, 10, max_dets_per_image or 100]  # COCOeval wants three; the last counts
        self._metadata = MetadataCatalog.get(dataset_name)
        if not hasattr(self._metadata, "json_file"):
            if output_dir is None:
                raise ValueError(
                    f"the metadata of {dataset_name} has no json_file, and there is no output_dir "
                    "for one that is made of its dicts; give either"
                )
            path = os.path.join(output_dir, f"{dataset_name}_coco_format.json")
            convert_to_coco_json(dataset_name, path, allow_cached=allow_cached_coco)
            self._metadata.json_file = path
        with contextlib.redirect_stdout(io.StringIO()):
            self._coco_api = COCO(PathManager.get_local_path(self._metadata.json_file))
        self._do_evaluation = "annotations" in self._coco_api.dataset

    def reset(self) -> None:
        self._predictions: list[dict] = []

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Keep the "instances" of a batch, see `instances_to_coco_json`, by their "image_id"."""
        for image, output in zip(inputs, outputs):
            if "instances" in output:
                found = instances_to_coco_json(output["instances"], image["image_id"])
                self._predictions.append({"image_id": image["image_id"], "instances": found})

    def evaluate(self, img_ids: Sequence | None = None) -> dict[str, dict[str, float]]:
        """{task: metrics} in the main process, and {} in the others.

        It is {} too without predictions, and where the ground truth has no annotations (test sets).

        Args:
            img_ids: only these images.
        """
        predictions = self._predictions
        if self._distributed:
            comm.synchronize()
            ranks = comm.gather(predictions, dst=0)
            if not comm.is_main_process():
                return {}
            predictions = [prediction for rank in ranks for prediction in rank]
        if not predictions:
            self._logger.warning("nothing was predicted, so there is nothing to evaluate")
            return {}
        if self._output_dir:
            PathManager.mkdirs(self._output_dir)
            path = os.path.join(self._output_dir, "instances_predictions.pth")
            with PathManager.open(path, "wb") as f:
                torch.save(predictions, f)
        self._results: dict[str, dict[str, float]] = OrderedDict()
        self._eval_predictions(predictions, img_ids)
        return copy.deepcopy(self._results)

    def _eval_predictions(self, predictions: list[dict], img_ids: Sequence | None = None) -> None:
        results = [instance for prediction in predictions for instance in prediction["instances"]]
        results = self._with_dataset_ids(results)
        if self._output_dir:
            path = os.path.join(self._output_dir, "coco_instances_results.json")
            self._logger.info(f"Writing {len(results)} instances to {path}")
            with PathManager.open(path, "w") as f:
                json.dump(results, f)
        if not self._do_evaluation:
            self._logger.info("the ground truth has no annotations, so there is no AP")
            return
        has_masks = any("segmentation" in result for result in results)
        for task in sorted(self._tasks or _TASKS[: 1 + has_masks]):
            self._results[task] = self._metrics(results, task, img_ids)

    def _with_dataset_ids(self, results: list[dict]) -> list[dict]:
        to_contiguous = self._metadata.get("thing_dataset_id_to_contiguous_id")
        if to_contiguous is None:
            return results
        to_dataset = {contiguous: dataset for dataset, contiguous in to_contiguous.items()}
        assert to_dataset.keys() == set(range(len(to_dataset))), to_contiguous
        unknown = {result["category_id"] for result in results} - to_dataset.keys()
        assert not unknown, (unknown, to_contiguous)
        return [{**r, "category_id": to_dataset[r["category_id"]]} for r in results]

    def _metrics(
        self, results: list[dict], task: str, img_ids: Sequence | None
    ) -> dict[str, float]:
        if not results:  # which pycocotools does not take
            self._logger.warning(f"no instance was predicted, so {task} AP is not a number")
            return dict.fromkeys(_METRICS, np.nan)
        coco_eval = _evaluate_on_coco(self._coco_api, results, task, img_ids, self._max_dets)
        precision = coco_eval.eval["precision"][..., -1]  # (IoUs, recalls, classes, areas)
        thresholds, areas = coco_eval.params.iouThrs, coco_eval.params.areaRngLbl
        metrics = {}
        for name, (threshold, area) in _METRICS.items():
            chosen = slice(None) if threshold is None else np.isclose(thresholds, threshold)
            metrics[name] = _mean_percent(precision[chosen, :, :, areas.index(area)])
        self._logger.info(f"{task} in percent:\n{create_small_table(metrics)}")
        names = self._metadata.get("thing_classes", ())
        if len(names) <= 1:
            return metrics
        assert len(names) == precision.shape[2], (len(names), precision.shape)
        by_class = {
            name: _mean_percent(precision[:, :, i, areas.index("all")])
            for i, name in enumerate(names)
        }
        self._logger.info(f"{task} AP of each category:\n{_table(by_class)}")
        return {**metrics, **{f"AP-{name}": value for name, value in by_class.items()}}


def _mean_percent(precision: np.ndarray) -> float:
    """100 times the mean of what is there; -1 stands for what is not."""
    precision = precision[precision > -1]
    return 100 * float(precision.mean()) if precision.size else np.nan


def _evaluate_on_coco(
    truth: COCO, results: list[dict], task: str, img_ids: Sequence | None, max_dets: list[int]
) -> COCOeval:
    # With a box in it, COCO would take the box's area for the mask's.
    unused = "bbox" if task == "segm" else "segmentation"
    results = [{k: v for k, v in result.items() if k != unused} for result in results]
    with contextlib.redirect_stdout(io.StringIO()):
        coco_eval = COCOeval(truth, truth.loadRes(results), task)
        coco_eval.params.maxDets = max_dets
        if img_ids is not None:
            coco_eval.params.imgIds = img_ids
        coco_eval.evaluate()
        coco_eval.accumulate()
    return coco_eval


def _table(values: dict[str, float]) -> str:
    cells: list[Any] = [cell for row in values.items() for cell in row]
    columns = min(_TABLE_COLUMNS, len(cells))
    rows = [cells[i : i + columns] for i in range(0, len(cells), columns)]
    return tabulate(
        rows,
        headers=["category", "AP"] * (columns // 2),
        tablefmt="pipe",
        floatfmt=".3f",
        numalign="left",
    )


def instances_to_coco_json(instances: Instances, img_id: int | str) -> list[dict]:
    """Instances of one image in COCO's result format.

    Args:
        instances: pred_boxes (N,4) in x0, y0, x1, y1; scores (N,); pred_classes (N,); pred_masks
            (N,H,W) if there are masks.

    Returns:
        N dicts with "image_id", "category_id" (the predicted class), "bbox" (x, y, width, height),
        "score", and "segmentation" (RLE with text as counts).
    """
    if len(instances) == 0:
        return []
    instances = instances.to("cpu")
    boxes = BoxMode.convert(instances.pred_boxes.tensor, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)
    results = [
        {"image_id": img_id, "category_id": category, "bbox": box, "score": score}
        for category, box, score in zip(
            instances.pred_classes.tolist(), boxes.tolist(), instances.scores.tolist()
        )
    ]
    if instances.has("pred_masks"):
        for result, mask in zip(results, instances.pred_masks):
            rle = mask_util.encode(np.asfortranarray(mask.numpy(), dtype=np.uint8))
            result["segmentation"] = {**rle, "counts": rle["counts"].decode("ascii")}
    return results


__getattr__ = _missing_attribute(__name__)
