"""Which query answers for which target: bipartite matching (paper, sec. 3.3).

D predictions (one a decoder layer), B batch, Q queries, K classes, T targets of an image, N of the
batch, M matched pairs of the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from mask2former.layers.point_sampling import random_points
from mask2former.modeling.criterion.costs import class_cost
from mask2former.modeling.criterion.mask_comparison import MaskComparison
from mask2former.modeling.criterion.predicted_masks import PredictedMasks

# Stands for a cost that is not finite, so that such a pair is the last choice. Far above all true
# costs, and small enough for their differences to survive in a sum of float64.
WORST_COST = 1e9


class Matches(NamedTuple):
    """The matched pairs of each prediction, image by image; each (D,M) int64."""

    image: Tensor
    query: Tensor
    target: Tensor  # counted through the whole batch


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
    comparison: MaskComparison

    @torch.no_grad()
    def __call__(
        self,
        class_logits: Tensor,
        predicted: PredictedMasks,
        labels: Sequence[Tensor],
        masks: Sequence[Tensor],
        generators: Sequence[torch.Generator | None],
    ) -> Matches:
        """
        Args:
            labels, masks: the targets of each image; masks bool, or numbers in [0, 1].
            generators: where the points of each image come from.
        Shapes: (D,B,Q,K+1), B x (T,), B x (T,H',W')
        """
        device = class_logits.device
        num_targets = [len(image_labels) for image_labels in labels]
        with_targets = [image for image, count in enumerate(num_targets) if count]
        # An image's points come one prediction after the other, whatever is compared at once.
        draw = partial(
            random_points,
            [min(count, 1) for count in num_targets],
            self.comparison.num_cost_points,
            generators,
            device,
        )
        points = torch.stack([draw() for _ in class_logits], dim=1)  # (with targets,D,P,2)
        costs = class_logits.new_zeros((*class_logits.shape[:3], max(num_targets)))
        for image, image_points in zip(with_targets, points):
            mask_cost, dice_cost = self.comparison.costs(
                predicted, image, masks[image], image_points
            )
            costs[:, image, :, : num_targets[image]] = (
                self.class_weight * class_cost(class_logits[:, image], labels[image])
                + self.mask_weight * mask_cost
                + self.dice_weight * dice_cost
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
        return Matches(*indices.unbind(1))
