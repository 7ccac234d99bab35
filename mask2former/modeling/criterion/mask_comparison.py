"""How predicted masks are compared with targets: at sampled points, or pixel by pixel.

D predictions (one a decoder layer), d some of them, Q queries, T targets of an image, N of the
batch, M matched pairs of the batch, P points, H W the predictions' grid, H' W' the targets'. A
comparison gives the matcher its costs and the criterion its losses, of all predictions at once;
weights are theirs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from mask2former.layers.chunks import chunks
from mask2former.layers.point_sampling import point_sample, sample_targets, uncertain_points
from mask2former.modeling.criterion.costs import dice_cost, focal_cost, mask_cost
from mask2former.modeling.criterion.losses import dice_loss, focal_loss, mask_loss
from mask2former.modeling.criterion.predicted_masks import PredictedMasks

DrawPoints = Callable[[int], Tensor]  # num -> (M,num,2): random points for each pair
SelectMasks = Callable[[slice], Tensor]  # predictions -> (d,M,H,W): logits of the matched queries


class MaskComparison(Protocol):
    """Targets are bool, or numbers in [0, 1]; results have the type of the predictions."""

    num_cost_points: int  # random points that costs are taken at; 0: they need none

    def costs(
        self, masks: PredictedMasks, image: int, targets: Tensor, points: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Mask and dice cost of every pair of one image; a prediction's masks share its points.

        Shapes: (T,H',W'), (D,P,2) -> (D,Q,T), (D,Q,T)
        """

    def losses(
        self,
        select: SelectMasks,
        masks: Tensor,
        matched_targets: Tensor,
        num_masks: Tensor,
        draw: DrawPoints,
    ) -> tuple[Tensor, Tensor]:
        """Mask and dice loss of the matched pairs of each prediction, M > 0.

        Args:
            masks: all targets of the batch.
            matched_targets: which of them each pair has.
            draw: random points for one prediction.
        Shapes: (N,H',W'), (D,M), () -> (D,), (D,)
        """


@dataclass(frozen=True)
class AtPoints:
    """Mask2Former's: cross-entropy and dice at random points (paper, sec. 3.3).

    The losses prefer points where the prediction is undecided: of `num_points * oversample_ratio`
    random ones the least decided are kept, to make up `importance_sample_ratio` of the points; the
    rest is random.
    """

    num_points: int
    oversample_ratio: float
    importance_sample_ratio: float

    @property
    def num_cost_points(self) -> int:
        return self.num_points

    def costs(
        self, masks: PredictedMasks, image: int, targets: Tensor, points: Tensor
    ) -> tuple[Tensor, Tensor]:
        num_targets, num_predictions = len(targets), len(points)
        points = points.to(masks.dtype)
        everywhere = points.flatten(0, 1).expand(num_targets, -1, -1)  # (T,D*P,2)
        targets = sample_targets(targets, everywhere)
        targets = targets.view(num_targets, num_predictions, -1).transpose(0, 1)  # (D,T,P)
        costs = []
        # Besides the logits themselves, costs take their cross-entropy and their probabilities.
        numbers_each = (masks.numbers_a_point + 2 * masks.num_queries) * points.shape[1]
        for some in chunks(num_predictions, numbers_each * points.element_size()):
            logits = masks.at_points(some, image, points[some])  # (d,Q,P)
            costs.append((mask_cost(logits, targets[some]), dice_cost(logits, targets[some])))
        mask_costs, dice_costs = zip(*costs)
        return torch.cat(mask_costs), torch.cat(dice_costs)

    def losses(
        self,
        select: SelectMasks,
        masks: Tensor,
        matched_targets: Tensor,
        num_masks: Tensor,
        draw: DrawPoints,
    ) -> tuple[Tensor, Tensor]:
        num_predictions, num_pairs = matched_targets.shape
        num_candidates = int(self.num_points * self.oversample_ratio)
        num_uncertain = int(self.num_points * self.importance_sample_ratio)
        points, logits = [], []
        numbers_each = 6 * num_candidates  # as pixels and as points in two systems, and as logits
        for some in chunks(num_predictions, 4 * num_pairs * numbers_each):
            matched = select(some)  # (d,M,H,W)
            drawn = [(draw(num_candidates), draw(self.num_points - num_uncertain)) for _ in matched]
            matched = matched.flatten(0, 1)
            candidates, others = (torch.cat(x).to(matched.dtype) for x in zip(*drawn))  # (d*M,*,2)
            uncertain = uncertain_points(matched.detach(), candidates, num_uncertain)
            points.append(torch.cat((uncertain, others), dim=1))  # (d*M,P,2)
            logits.append(point_sample(matched[:, None], points[-1])[:, 0])  # (d*M,P)
        shape = (num_predictions, num_pairs, self.num_points)
        points, logits = torch.cat(points).view(*shape, 2), torch.cat(logits).view(shape)
        targets = sample_matched_targets(masks, points, matched_targets)
        return mask_loss(logits, targets, num_masks), dice_loss(logits, targets, num_masks)


def sample_matched_targets(masks: Tensor, points: Tensor, matched_targets: Tensor) -> Tensor:
    """Values of each pair's target at the pair's points.

    Each target is looked at once, at its points of all predictions.

    Shapes: (N,H',W'), (D,M,P,2), (D,M) -> (D,M,P)
    """
    num_predictions, _, num_points, _ = points.shape
    prediction = torch.arange(num_predictions, device=points.device)[:, None]
    # A target without a query, of an image with more targets than queries, leaves its line as is.
    by_target = points.new_zeros(len(masks), num_predictions, num_points, 2)
    by_target[matched_targets, prediction] = points
    values = sample_targets(masks, by_target.flatten(1, 2))  # (N,D*P)
    return values.view(len(masks), num_predictions, num_points)[matched_targets, prediction]


@dataclass(frozen=True)
class WholeMasks:
    """MaskFormer's: focal loss and dice at every pixel (MaskFormer, sec. 3.3 and 4.1).

    Costs are taken at the predictions' resolution, losses at the targets', as officially.
    """

    num_cost_points = 0

    def costs(
        self, masks: PredictedMasks, image: int, targets: Tensor, points: Tensor
    ) -> tuple[Tensor, Tensor]:
        if targets.dtype == torch.bool:  # which interpolate does not take
            targets = targets.view(torch.uint8)
        targets = F.interpolate(targets[None], size=masks.size, mode="nearest")[0]
        targets = targets.flatten(1).to(masks.dtype)  # (T,H*W)
        costs = []
        numbers_each = 5 * masks.num_queries * targets.shape[1]  # logits, what costs make of them
        for some in chunks(len(points), numbers_each * targets.element_size()):
            logits = masks.of_image(some, image).flatten(2)  # (d,Q,H*W)
            costs.append((focal_cost(logits, targets), dice_cost(logits, targets)))
        mask_costs, dice_costs = zip(*costs)
        return torch.cat(mask_costs), torch.cat(dice_costs)

    def losses(
        self,
        select: SelectMasks,
        masks: Tensor,
        matched_targets: Tensor,
        num_masks: Tensor,
        draw: DrawPoints,
    ) -> tuple[Tensor, Tensor]:
        losses = []
        numbers_each = 6 * matched_targets.shape[1] * masks[0].numel()
        for some in chunks(len(matched_targets), 4 * numbers_each):
            matched = F.interpolate(
                select(some), size=masks.shape[-2:], mode="bilinear", align_corners=False
            ).flatten(2)  # (d,M,H'*W')
            targets = masks[matched_targets[some]].flatten(2)
            losses.append(
                (focal_loss(matched, targets, num_masks), dice_loss(matched, targets, num_masks))
            )
        mask_losses, dice_losses = zip(*losses)
        return torch.cat(mask_losses), torch.cat(dice_losses)
