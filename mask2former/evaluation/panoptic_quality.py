"""Panoptic Quality (Kirillov et al. 2019, sec. 4) from the pixels that segments have in common.

T true and P predicted segments of an image, K categories. A predicted and a true segment of one
category match if their IoU is above one half; no segment has two matches. Of a category

    SQ = sum of matched IoUs / TP    RQ = TP / (TP + FP / 2 + FN / 2)    PQ = SQ * RQ

where void pixels are left out of every union. What is not fixed by the paper, crowds above all, is
as in panopticapi.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

VOID = 0  # the id of pixels without a segment

IOU, TP, FP, FN = range(4)  # columns of counts


class TrueSegments(NamedTuple):
    """What is known of them besides their pixels."""

    categories: np.ndarray  # (T,) 0..K-1
    is_crowd: np.ndarray  # (T,) bool
    areas: np.ndarray  # (T,) pixels that they are said to have; NaN: count them


def joint_histogram(
    true_ids: Tensor, predicted_ids: Tensor, true_list: Sequence[int], predicted_list: Sequence[int]
) -> np.ndarray:
    """Pixels by true and predicted segment; what is no segment comes first, unlisted ids last.

    Few pixels differ from their left neighbours. The others are left out where the maps are, so
    that the host gets little, and ids may be of any size.

    Shapes: (H,W), (H,W) of integers on one device, T ids, P ids -> (T+2,P+2) int64
    """
    truth, predicted = true_ids.flatten(), predicted_ids.flatten()
    is_last = truth.new_ones(truth.shape, dtype=torch.bool)  # of a run of equal pairs
    torch.ne(truth[1:], truth[:-1], out=is_last[:-1])
    is_last[:-1] |= predicted[1:] != predicted[:-1]
    last = is_last.nonzero()[:, 0]  # (R,)
    runs = torch.stack([last, truth[last].long(), predicted[last].long()]).cpu().numpy()
    rows, columns = _places(runs[1], true_list), _places(runs[2], predicted_list)
    shape = len(true_list) + 2, len(predicted_list) + 2
    lengths = np.diff(runs[0], prepend=-1)
    pixels = np.bincount(rows * shape[1] + columns, lengths, shape[0] * shape[1])
    return pixels.astype(np.int64).reshape(shape)


def _places(ids: np.ndarray, listed: Sequence[int]) -> np.ndarray:
    """(R,) ids -> where each is in VOID, *listed; after the end if it is not."""
    known = np.array([VOID, *listed])
    order = np.argsort(known, kind="stable")
    places = order[np.searchsorted(known, ids, sorter=order).clip(max=len(known) - 1)]
    return np.where(known[places] == ids, places, len(known))


def count_image(
    pixels: np.ndarray, truth: TrueSegments, predicted_categories: np.ndarray, num_categories: int
) -> np.ndarray:
    """What counts in one image, by category: sum of matched IoUs, TP, FP, FN.

    Args:
        pixels: (T+2,P+2), see `joint_histogram`.
        predicted_categories: (P,) 0..K-1.

    Returns:
        (K,4) float64
    """
    common, void = pixels[1:-1, 1:-1], pixels[0, 1:-1]  # (T,P), (P,)
    sizes = pixels[:, 1:-1].sum(0)  # (P,)
    counted = pixels[1:-1].sum(1)  # (T,)
    true_sizes = np.where(np.isnan(truth.areas), counted, truth.areas)
    may_match = truth.categories[:, None] == predicted_categories  # (T,P)
    may_match &= ~truth.is_crowd[:, None] & (common > 0)
    t, p = may_match.nonzero()  # (M,): M matches, once the others are gone
    iou = common[t, p] / (true_sizes[t] + sizes[p] - common[t, p] - void[p])
    t, p, iou = (x[iou > 0.5] for x in (t, p, iou))

    is_missed = ~truth.is_crowd
    is_missed[t] = False
    # What lies mostly where nothing, or a crowd of its category, is annotated is not wrong. Of
    # several such crowds panopticapi knows the last.
    crowds = np.zeros(num_categories, np.int64)  # rows of pixels; 0: there is none
    crowds[truth.categories[truth.is_crowd]] = 1 + np.flatnonzero(truth.is_crowd)
    crowds = crowds[predicted_categories]
    in_crowd = np.where(crowds > 0, pixels[crowds, 1 + np.arange(len(crowds))], 0)
    is_wrong = 2 * (void + in_crowd) <= sizes
    is_wrong[p] = False

    def by_category(categories: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        return np.bincount(categories, weights, num_categories)

    counts = {
        IOU: by_category(truth.categories[t], iou),
        TP: by_category(truth.categories[t]),
        FP: by_category(predicted_categories[is_wrong]),
        FN: by_category(truth.categories[is_missed]),
    }
    return np.stack([counts[column] for column in sorted(counts)], 1).astype(np.float64)


def quality(counts: np.ndarray) -> np.ndarray:
    """PQ, SQ and RQ of each category in percent; NaN for one that neither was there nor predicted.

    Shapes: (K,4), see `count_image` -> (K,3)
    """
    iou, tp, fp, fn = counts.T
    weight = tp + (fp + fn) / 2
    scores = np.full((len(counts), 3), np.nan)
    seen = weight > 0
    scores[seen, 1] = 100 * (iou / np.maximum(tp, 1))[seen]
    scores[seen, 0::2] = 100 * np.stack([iou, tp], 1)[seen] / weight[seen, None]
    return scores


def mean_quality(scores: np.ndarray, chosen: np.ndarray) -> tuple[list[float], int]:
    """PQ, SQ and RQ on average over those of the chosen categories that have any, and their number.

    Shapes: (K,3), see `quality`; (K,) bool. The averages are NaN over none.
    """
    seen = scores[chosen & ~np.isnan(scores[:, 0])]
    means = seen.mean(0).tolist() if len(seen) else [float("nan")] * 3
    return means, len(seen)
