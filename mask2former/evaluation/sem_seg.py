"""Mean IoU and pixel accuracies of semantic segmentation, counted on the model's device."""

import logging
from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils.logger import create_small_table
from torch import Tensor

from mask2former.evaluation.confusion import (
    check_sizes,
    class_counts,
    class_scores,
    label_outside,
    predicted_labels,
)
from mask2former.evaluation.processes import sum_over_processes
from mask2former.evaluation.read_ahead import ReadAhead
from mask2former.files import read_numbers

logger = logging.getLogger(__name__)

MEANS = ("mIoU", "fwIoU", "mACC", "pACC")


class SemSegEvaluator(DatasetEvaluator):
    """mIoU, frequency weighted IoU and accuracies, in percent.

    These are the numbers of detectron2's evaluator of this name, which besides gives Boundary IoU
    and writes the predictions. Only the images that were processed count, each of them once in a
    process. What is kept is three numbers a class.

    Args:
        dataset_name: its dicts have file_name and sem_seg_file_name, its metadata stuff_classes and
            ignore_label.
        sem_seg_loading_fn: (file name, dtype=...) -> (H,W) labels, in place of a picture's pixels.
    """

    def __init__(
        self, dataset_name: str, sem_seg_loading_fn: Callable[..., np.ndarray] | None = None
    ) -> None:
        metadata = MetadataCatalog.get(dataset_name)
        self._dataset_name = dataset_name
        self._class_names = metadata.stuff_classes
        self._ignore_label = metadata.ignore_label
        self._truth_file = {
            sample["file_name"]: sample["sem_seg_file_name"]
            for sample in DatasetCatalog.get(dataset_name)
        }
        load = partial(read_numbers, advice="prepare the dataset again")
        if sem_seg_loading_fn is not None:
            load = partial(sem_seg_loading_fn, dtype=np.int32)
        truth_file = self._truth_file
        self._truth = ReadAhead(list(truth_file), lambda name: load(truth_file[name]))
        self.reset()

    def reset(self) -> None:
        self._counts = np.zeros((3, len(self._class_names)), np.int64)  # see `class_counts`
        self._seen: set[str] = set()
        self._truth.stop()

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Count.

        Args:
            inputs: "file_name" of each image.
            outputs: "sem_seg" of each, scores (K,H,W) or labels (H,W).

        Raises:
            FileNotFoundError: an image has no ground truth.
            ValueError: an image and its ground truth differ in size, or have a label outside of
                the classes.
        """
        for sample, output in zip(inputs, outputs):
            file_name = sample["file_name"]
            if file_name in self._seen:
                continue
            if file_name not in self._truth_file:
                raise ValueError(
                    f"{file_name}: no picture of {self._dataset_name}; evaluate its own"
                )
            self._counts += self._count(file_name, output["sem_seg"])
            self._seen.add(file_name)

    def _count(self, file_name: str, sem_seg: Tensor) -> np.ndarray:
        (reading,) = self._truth(file_name)
        prediction = predicted_labels(sem_seg)  # (H,W), while it is read
        truth, truth_file = reading.result(), self._truth_file[file_name]
        num_classes = len(self._class_names)
        check_sizes(prediction, truth, file_name, truth_file)
        is_ignored = truth == self._ignore_label
        is_outside = ((truth < 0) | (truth >= num_classes)) & ~is_ignored
        if is_outside.any():
            raise self._outside(truth[is_outside][0], truth_file)
        outside = label_outside(prediction, num_classes)
        if outside is not None:
            raise self._outside(outside, f"the prediction for {file_name}")
        labels = truth.astype(np.uint8 if num_classes <= 255 else np.int32)
        np.copyto(labels, num_classes, where=is_ignored)
        labels = torch.from_numpy(labels).to(prediction.device)
        return class_counts(labels, prediction, num_classes).cpu().numpy()

    def _outside(self, label: int, source: str) -> ValueError:
        return ValueError(
            f"{source} has label {label}, but {self._dataset_name} has {len(self._class_names)} "
            f"classes and ignores {self._ignore_label}; correct one of the two"
        )

    def evaluate(self) -> OrderedDict | None:
        """
        Returns:
            on the main process {"sem_seg": see `class_scores`}.
        """
        self._truth.stop()
        merged = sum_over_processes([self._counts], self._seen, self._dataset_name)
        if merged is None:
            return None
        ((counts,), _) = merged
        scores = class_scores(counts, self._class_names)
        means = create_small_table({name: scores[name] for name in MEANS})
        classes = ", ".join(f"{name} {scores[f'IoU-{name}']:.1f}" for name in self._class_names)
        logger.info("Semantic segmentation in percent:\n%s\nIoU: %s", means, classes)
        return OrderedDict(sem_seg=scores)
