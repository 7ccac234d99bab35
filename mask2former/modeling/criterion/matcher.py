"""Which query answers for which target: bipartite matching at sampled points (paper, sec. 3.3).

D predictions (one a decoder layer), B batch, Q queries, K classes, T targets of an image, N of the
batch, P points, M matched pairs of the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from mask2former.device import full_precision
from mask2former.layers.point_sampling import point_sample, random_points

# Stands for a cost that is not finite, so that such a pair is the last choice. Far above all true
# costs, and small enough for their differences to survive in a sum of float64.
WORST_COST = 1e9


class Matches(NamedTuple):
    """The matched pairs of one prediction, image by image; each (M,) int64."""

    image: Tensor
    query: Tensor
    target: Tensor  # counted through the whole batch


def class_cost(class_logits: Tensor, labels: Tensor) -> Tensor:
    """Minus the probability of the target's class: (Q,K+1), (T,) -> (Q,T)"""
    return -class_logits.softmax(-1)[:, labels]


def mask_cost(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean binary cross-entropy of every pair: (Q,P), (T,P) -> (Q,T)"""
    # BCE(x, t) = softplus(x) - x t, so all pairs take one matrix product.
    return (F.softplus(logits).sum(1, keepdim=True) - logits @ targets.T) / logits.shape[1]


def dice_cost(logits: Tensor, targets: Tensor) -> Tensor:
    """Dice loss of every pair: (Q,P), (T,P) -> (Q,T)"""
    probabilities = logits.sigmoid()
    overlap = 2 * (probabilities @ targets.T)
    total = probabilities.sum(1, keepdim=True) + targets.sum(1)
    return 1 - (overlap + 1) / (total + 1)


def assign(cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of least total cost: (Q,T) -> queries, targets, each (min(Q,T),), by target.

    Costs that are not finite count as WORST_COST; a broken prediction is the loss's to report.
    """
    cost = np.nan_to_num(cost, nan=WORST_COST, posinf=WORST_COST, neginf=WORST_COST)
    targets, queries = linear_sum_assignment(cost.T.astype(np.float64))
    return queries, targets


@dataclass(frozen=True)
class HungarianMatcher:
    """Matches every target to one query, for all predictions of a batch."""

    class_weight: float
    mask_weight: float
    dice_weight: float
    num_points: int

    @torch.no_grad()
    def __call__(
        self,
        class_logits: Sequence[Tensor],
        mask_logits: Sequence[Tensor],
        labels: Sequence[Tensor],
        masks: Sequence[Tensor],
        generators: Sequence[torch.Generator | None],
    ) -> list[Matches]:
        """
        Args:
            labels, masks: the targets of each image.
            generators: where the points of each image come from.
        Shapes: D x (B,Q,K+1), D x (B,Q,H,W), B x (T,), B x (T,H',W') float -> D matches
        """
        device = class_logits[0].device
        num_targets = [len(image_labels) for image_labels in labels]
        num_queries = class_logits[0].shape[1]
        costs = class_logits[0].new_zeros(
            (len(class_logits), len(labels), num_queries, max(num_targets)), dtype=torch.float32
        )
        for prediction in range(len(class_logits)):
            for image, count in enumerate(num_targets):
                if count:
                    costs[prediction, image, :, :count] = self.cost(
                        class_logits[prediction][image],
                        mask_logits[prediction][image],
                        labels[image],
                        masks[image],
                        generators[image],
                    )
        costs = costs.cpu().numpy()  # the one wait for the device

        first_target = np.cumsum([0, *num_targets])
        pairs = []  # D x 3 x M
        for prediction_costs in costs:
            images, queries, targets = [], [], []
            for image, count in enumerate(num_targets):
                query, target = assign(prediction_costs[image, :, :count])
                images.append(np.full_like(query, image))
                queries.append(query)
                targets.append(target + first_target[image])
            pairs.append([np.concatenate(index) for index in (images, queries, targets)])
        indices = torch.from_numpy(np.array(pairs, dtype=np.int64)).to(device)
        return [Matches(*prediction) for prediction in indices]

    def cost(
        self,
        class_logits: Tensor,
        mask_logits: Tensor,
        labels: Tensor,
        masks: Tensor,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Cost of every pair of one image, at points that all its masks share.

        Shapes: (Q,K+1), (Q,H,W), (T,), (T,H',W') float -> (Q,T) float32
        """
        with full_precision(mask_logits.device.type):
            points = random_points([1], self.num_points, [generator], mask_logits.device)
            logits = point_sample(mask_logits[None].float(), points)[0]  # (Q,P)
            targets = point_sample(masks[None].float(), points)[0]  # (T,P)
            return (
                self.class_weight * class_cost(class_logits.float(), labels)
                + self.mask_weight * mask_cost(logits, targets)
                + self.dice_weight * dice_cost(logits, targets)
            )
