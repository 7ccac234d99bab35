"""Semantic segmentation measured by counted pixels.

K classes. Functions of tensors on any device, which is where they count.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

CHUNK_PIXELS = 2**18  # of which the best scores stay in the cache of a CPU
MOST_PAIRS = 2**20  # above, adding up the counts of pairs takes longer than counting thrice


def predicted_labels(sem_seg: Tensor) -> Tensor:
    """The class of each pixel, the first one of equals.

    Args:
        sem_seg: (K,H,W) floating point scores, or (H,W) integer labels.

    Returns:
        (H,W), of any integer type.

    Raises:
        ValueError: they are neither.
    """
    is_score = sem_seg.dtype.is_floating_point
    if sem_seg.dim() != (3 if is_score else 2):
        raise ValueError(
            f"a prediction of shape {tuple(sem_seg.shape)} and type {sem_seg.dtype}; give scores "
            "(K,H,W) or integer labels (H,W)"
        )
    if not is_score:
        return sem_seg
    if sem_seg.device.type != "cpu" or sem_seg.stride(0) == 1:
        return sem_seg.argmax(0)
    # Of maps of scores, argmax(0) looks at one pixel after another; this is ten times as fast.
    dtype = smallest_type(len(sem_seg) - 1)
    rows = max(1, CHUNK_PIXELS // sem_seg.shape[2])
    labels = torch.zeros(sem_seg.shape[1:], dtype=dtype)
    for chunk, found in zip(sem_seg.split(rows, 1), labels.split(rows)):
        best = chunk[0].clone()
        for label, scores in enumerate(chunk[1:], start=1):
            is_better = (scores > best).view(torch.uint8).to(dtype)
            torch.maximum(found, is_better.mul_(label), out=found)  # earlier labels are smaller
            torch.maximum(best, scores, out=best)
    return labels


def smallest_type(highest: int) -> torch.dtype:
    """The smallest integer type for 0..highest of those that all of torch can work with."""
    types = (torch.uint8, torch.int16, torch.int32)
    return next((t for t in types if highest <= torch.iinfo(t).max), torch.int64)


def pair_counts(truth: Tensor, prediction: Tensor, num_true: int, num_predicted: int) -> Tensor:
    """Pixels by true and predicted label.

    Shapes: (H,W), (H,W), of any integer types, labels from 0 on -> (num_true,num_predicted) int64
    """
    num_pairs = num_true * num_predicted
    dtype = smallest_type(num_pairs - 1)  # in int64 the product takes longer than the counting
    pairs = truth.to(dtype) * num_predicted + prediction.to(dtype)
    counts = torch.bincount(pairs.flatten(), minlength=num_pairs)
    return counts.view(num_true, num_predicted)


def class_counts(truth: Tensor, prediction: Tensor, num_classes: int) -> Tensor:
    """Pixels of each class that are right, that are true, and that are predicted.

    Args:
        truth: (H,W) labels 0..K; pixels of K are ignored.
        prediction: (H,W) labels 0..K-1.

    Returns:
        (3,K) int64
    """
    if (num_classes + 1) * num_classes <= MOST_PAIRS:
        pairs = pair_counts(truth, prediction, num_classes + 1, num_classes)[:-1]
        return totals_of(pairs)
    counted = truth < num_classes
    kinds = prediction[truth == prediction], truth[counted], prediction[counted]
    return torch.stack([torch.bincount(labels, minlength=num_classes) for labels in kinds])


def check_sizes(prediction: Tensor, truth: np.ndarray, file_name: str, truth_file: str) -> None:
    """
    Raises:
        ValueError: the two have different sizes, or not one label a pixel.
    """
    if prediction.shape != truth.shape:
        raise ValueError(
            f"the prediction for {file_name} has size {tuple(prediction.shape)}, its ground truth "
            f"{truth_file} {truth.shape}; check the dataset's height and width"
        )


def label_outside(labels: Tensor, num_labels: int) -> int | None:
    """One of the labels that are not in 0..num_labels-1, if there are such."""
    lowest, highest = torch.stack(labels.aminmax()).tolist()
    if lowest < 0:
        return lowest
    return highest if highest >= num_labels else None


def totals_of(pairs: Tensor) -> Tensor:
    """The counts of `class_counts`, of pairs of the same classes: (K,K) -> (3,K)."""
    return torch.stack([pairs.diagonal(), pairs.sum(1), pairs.sum(0)])


def class_scores(counts: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """In percent mIoU, fwIoU, IoU-NAME, mACC, pACC, ACC-NAME, as detectron2's SemSegEvaluator.

    A class without pixels in the ground truth has NaN, and no part in the means.

    Args:
        counts: (3,K), see `class_counts`.
    """
    correct, true, predicted = counts.astype(np.float64)
    is_there = true > 0
    iou, accuracy = (
        np.divide(correct, whole, out=np.full(len(names), np.nan), where=is_there)
        for whole in (true + predicted - correct, true)
    )
    total = true.sum()
    mean_iou, mean_accuracy = (
        values[is_there].mean() if total else np.nan for values in (iou, accuracy)
    )
    scores = {"mIoU": mean_iou, "fwIoU": (iou * true)[is_there].sum() / max(total, 1)}
    scores |= {f"IoU-{name}": value for name, value in zip(names, iou)}
    scores |= {"mACC": mean_accuracy, "pACC": correct.sum() / total if total else np.nan}
    scores |= {f"ACC-{name}": value for name, value in zip(names, accuracy)}
    return {name: 100 * float(value) for name, value in scores.items()}
