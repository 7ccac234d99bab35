"""Semantic segmentation measured by counted pixels.

K number of classes. A confusion matrix (K+1,K+1) counts pixels by [prediction, ground truth]; its
last row and column are the ignored ones.
"""

from __future__ import annotations

import json
import logging
import os
from collections import OrderedDict
from collections.abc import Callable

import cv2
import numpy as np
import pycocotools.mask as mask_util
import torch
from PIL import Image

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.comm import all_gather, is_main_process, synchronize
from detectron2.utils.file_io import PathManager

from .evaluator import DatasetEvaluator

_BOUNDARY_WIDTH = 0.02  # of the image diagonal; Boundary IoU (Cheng et al. 2021), sec. 5
_MAX_BOUNDARY_CLASSES = 254  # labels have to fit into uint8, which OpenCV erodes


def load_image_into_numpy_array(filename: str, dtype: np.dtype | str | None = None) -> np.ndarray:
    """The pixels of a label image (H,W)."""
    with PathManager.open(filename, "rb") as f:
        return np.array(Image.open(f), dtype=dtype)


class SemSegEvaluator(DatasetEvaluator):
    """mIoU, frequency weighted IoU, accuracies and Boundary IoU, in percent.

    Args:
        dataset_name: a registered dataset; its dicts have "file_name" and "sem_seg_file_name", its
            metadata `stuff_classes`, `ignore_label` and, if the label values are no dataset ids,
            `stuff_dataset_id_to_contiguous_id`.
        distributed: join the counts of all processes; else each one evaluates its own.
        output_dir: gets sem_seg_predictions.json (COCO stuff format) and sem_seg_evaluation.pth.
        sem_seg_loading_fn: (file name, dtype=...) -> array (H,W) of labels.
        num_classes, ignore_label: only to check the first, and to replace the second, of what the
            metadata say.
    """

    def __init__(
        self,
        dataset_name: str,
        distributed: bool = True,
        output_dir: str | None = None,
        *,
        sem_seg_loading_fn: Callable[..., np.ndarray] = load_image_into_numpy_array,
        num_classes: int | None = None,
        ignore_label: int | None = None,
    ):
        self._logger = logging.getLogger(__name__)
        self._dataset_name = dataset_name
        self._distributed = distributed
        self._output_dir = output_dir
        self.sem_seg_loading_fn = sem_seg_loading_fn
        self.input_file_to_gt_file = {
            record["file_name"]: record["sem_seg_file_name"]
            for record in DatasetCatalog.get(dataset_name)
        }
        metadata = MetadataCatalog.get(dataset_name)
        self._class_names = metadata.stuff_classes
        self._num_classes = len(self._class_names)
        assert num_classes in (None, self._num_classes), (num_classes, self._num_classes)
        self._ignore_label = metadata.ignore_label if ignore_label is None else ignore_label
        to_contiguous = metadata.get("stuff_dataset_id_to_contiguous_id")
        self._contiguous_id_to_dataset_id = (
            {contiguous: dataset for dataset, contiguous in to_contiguous.items()}
            if to_contiguous is not None
            else None
        )
        self._has_boundaries = self._num_classes <= _MAX_BOUNDARY_CLASSES
        if not self._has_boundaries:
            self._logger.warning(
                f"no Boundary IoU: {dataset_name} has {self._num_classes} classes, "
                f"and it is computed for at most {_MAX_BOUNDARY_CLASSES}"
            )

    def reset(self) -> None:
        shape = (self._num_classes + 1, self._num_classes + 1)
        self._conf_matrix = np.zeros(shape, dtype=np.int64)
        self._b_conf_matrix = np.zeros(shape, dtype=np.int64)
        self._predictions: list[dict] = []

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Count a batch; `outputs[i]["sem_seg"]` are class scores (K,H,W).

        Raises:
            ValueError: an image and its ground truth differ in size, or have a label outside of
                the classes.
        """
        for image, output in zip(inputs, outputs):
            file_name = image["file_name"]
            pred = output["sem_seg"].argmax(dim=0).cpu().numpy().astype(np.int64)
            gt_file = self.input_file_to_gt_file[file_name]
            gt = self.sem_seg_loading_fn(gt_file, dtype=np.int64)
            gt = np.where(gt == self._ignore_label, self._num_classes, gt)
            self._check(pred, gt, file_name, gt_file)
            self._conf_matrix += self._count(pred, gt)
            if self._has_boundaries:
                self._b_conf_matrix += self._count(_boundary(pred), _boundary(gt))
            if self._output_dir:
                self._predictions.extend(self.encode_json_sem_seg(pred, file_name))

    def _check(self, pred: np.ndarray, gt: np.ndarray, file_name: str, gt_file: str) -> None:
        if pred.shape != gt.shape:
            raise ValueError(
                f"the prediction for {file_name} has size {pred.shape}, its ground truth {gt_file} "
                f"{gt.shape}; check the dataset's height and width"
            )
        for labels, source in ((pred, f"the prediction for {file_name}"), (gt, gt_file)):
            if labels.min() < 0 or labels.max() > self._num_classes:
                outside = labels.max() if labels.min() >= 0 else labels.min()
                raise ValueError(
                    f"{source} has label {outside}, but {self._dataset_name} has "
                    f"{self._num_classes} classes and ignores {self._ignore_label}; "
                    "correct one of the two"
                )

    def _count(self, pred: np.ndarray, gt: np.ndarray) -> np.ndarray:  # -> (K+1,K+1)
        size = self._num_classes + 1
        return np.bincount((pred * size + gt).ravel(), minlength=size**2).reshape(size, size)

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """{"sem_seg": metrics} in the main process, None in the others.

        A class without pixels in the ground truth has NaN, and no part in the means.
        """
        if self._distributed:
            synchronize()
            parts = all_gather((self._conf_matrix, self._b_conf_matrix, self._predictions))
            if not is_main_process():
                return None
            self._conf_matrix = np.sum([part[0] for part in parts], axis=0)
            self._b_conf_matrix = np.sum([part[1] for part in parts], axis=0)
            self._predictions = [record for part in parts for record in part[2]]

        metrics = self._metrics()
        if self._output_dir:
            PathManager.mkdirs(self._output_dir)
            path = os.path.join(self._output_dir, "sem_seg_predictions.json")
            with PathManager.open(path, "w") as f:
                json.dump(self._predictions, f)
            path = os.path.join(self._output_dir, "sem_seg_evaluation.pth")
            with PathManager.open(path, "wb") as f:
                torch.save(metrics, f)
        results = OrderedDict(sem_seg=metrics)
        self._logger.info(results)
        return results

    def _metrics(self) -> dict[str, float]:
        correct, num_gt, union = _pixel_counts(self._conf_matrix)
        present = num_gt > 0
        iou, accuracy = np.full((2, self._num_classes), np.nan)
        iou[present] = correct[present] / union[present]
        accuracy[present] = correct[present] / num_gt[present]
        b_correct, _, b_union = _pixel_counts(self._b_conf_matrix)
        b_iou = np.full(self._num_classes, np.nan)
        b_iou[b_union > 0] = b_correct[b_union > 0] / b_union[b_union > 0]

        weights = num_gt[present] / num_gt.sum()
        metrics = {"mIoU": _mean(iou[present]), "fwIoU": (iou[present] * weights).sum()}
        for name, class_iou, class_b_iou in zip(self._class_names, iou, b_iou):
            metrics[f"IoU-{name}"] = class_iou
            if self._has_boundaries:
                metrics[f"BoundaryIoU-{name}"] = class_b_iou
                metrics[f"min(IoU, B-Iou)-{name}"] = min(class_iou, class_b_iou)
        metrics["mACC"] = _mean(accuracy[present])
        metrics["pACC"] = correct.sum() / num_gt.sum() if present.any() else np.nan
        metrics.update({f"ACC-{n}": value for n, value in zip(self._class_names, accuracy)})
        return {name: 100 * float(value) for name, value in metrics.items()}

    def encode_json_sem_seg(self, sem_seg: np.ndarray, input_file_name: str) -> list[dict]:
        """One COCO stuff record (a mask as RLE) for each label in `sem_seg` (H,W)."""
        records = []
        for label in np.unique(sem_seg).tolist():
            category = label
            if self._contiguous_id_to_dataset_id is not None:
                assert label in self._contiguous_id_to_dataset_id, (label, self._dataset_name)
                category = self._contiguous_id_to_dataset_id[label]
            rle = mask_util.encode(np.asfortranarray(sem_seg == label, dtype=np.uint8))
            rle["counts"] = rle["counts"].decode("utf-8")
            records.append(
                {"file_name": input_file_name, "category_id": category, "segmentation": rle}
            )
        return records


def _pixel_counts(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels of each class, as float (K,): correct, in the ground truth, in the union.

    Pixels that the ground truth ignores are no one's.
    """
    counted = matrix[:-1, :-1].astype(np.float64)
    correct, num_pred, num_gt = counted.diagonal(), counted.sum(axis=1), counted.sum(axis=0)
    return correct, num_gt, num_gt + num_pred - correct


def _mean(values: np.ndarray) -> float:
    return values.mean() if len(values) else np.nan


def _boundary(labels: np.ndarray) -> np.ndarray:
    """Labels (H,W) minus their minimum over a square around each pixel; outside of the image is 0.

    That leaves 0 away from edges. Differences being counted as if they were labels is detectron2's
    extension to more than one class. Its counts overflow above 15 classes, ours do not.
    """
    width = max(1, round(_BOUNDARY_WIDTH * float(np.hypot(*labels.shape))))
    square = np.ones((2 * width + 1, 2 * width + 1), dtype=np.uint8)
    small = labels.astype(np.uint8)
    border = {"borderType": cv2.BORDER_CONSTANT, "borderValue": 0}
    return (small - cv2.erode(small, square, **border)).astype(np.int64)
