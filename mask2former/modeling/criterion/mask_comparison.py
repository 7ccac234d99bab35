"""How predicted masks are compared with targets: at sampled points, or pixel by pixel.

Q queries, T targets of an image, M matched pairs of the batch, P points, H W the predictions' grid,
H' W' the targets'. A comparison gives the matcher its costs and the criterion its losses; weights
and the sum over masks are theirs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from mask2former.layers.point_sampling import point_sample, sample_uncertain_points
from mask2former.modeling.criterion.costs import dice_cost, focal_cost, mask_cost
from mask2former.modeling.criterion.losses import dice_loss, focal_loss, mask_loss

DrawPoints = Callable[[int], Tensor]  # num -> (N,num,2): random points for each of N masks


class MaskComparison(Protocol):
    """Masks come as float32 logits and as float targets in [0, 1]; all results are float32."""

    def costs(self, logits: Tensor, targets: Tensor, draw: DrawPoints) -> tuple[Tensor, Tensor]:
        """Mask and dice cost of every pair of one image; `draw` is for one mask, all share it.

        Shapes: (Q,H,W), (T,H',W') -> (Q,T), (Q,T)
        """

    def losses(
        self, logits: Tensor, targets: Tensor, num_masks: Tensor, draw: DrawPoints
    ) -> tuple[Tensor, Tensor]:
        """Mask and dice loss of the matched pairs, M > 0; `draw` is for M masks.

        Shapes: (M,H,W), (M,H',W'), () -> (), ()
        """


@dataclass(frozen=True)
class AtPoints:
    """Mask2Former's: cross-entropy and dice at random points (paper, sec. 3.3).

    The losses prefer points where the prediction is undecided; see sample_uncertain_points.
    """

    num_points: int
    oversample_ratio: float
    importance_sample_ratio: float

    def costs(self, logits: Tensor, targets: Tensor, draw: DrawPoints) -> tuple[Tensor, Tensor]:
        points = draw(self.num_points)
        logits = point_sample(logits[None], points)[0]  # (Q,P)
        targets = point_sample(targets[None], points)[0]  # (T,P)
        return mask_cost(logits, targets), dice_cost(logits, targets)

    def losses(
        self, logits: Tensor, targets: Tensor, num_masks: Tensor, draw: DrawPoints
    ) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            points = sample_uncertain_points(
                logits, self.num_points, self.oversample_ratio, self.importance_sample_ratio, draw
            )
            targets = point_sample(targets[:, None], points)[:, 0]  # (M,P)
        logits = point_sample(logits[:, None], points)[:, 0]  # (M,P)
        return mask_loss(logits, targets, num_masks), dice_loss(logits, targets, num_masks)


@dataclass(frozen=True)
class WholeMasks:
    """MaskFormer's: focal loss and dice at every pixel (MaskFormer, sec. 3.3 and 4.1).

    Costs are taken at the predictions' resolution, losses at the targets', as officially.
    """

    def costs(self, logits: Tensor, targets: Tensor, draw: DrawPoints) -> tuple[Tensor, Tensor]:
        targets = F.interpolate(targets[None], size=logits.shape[-2:], mode="nearest")[0]
        logits, targets = logits.flatten(1), targets.flatten(1)
        return focal_cost(logits, targets), dice_cost(logits, targets)

    def losses(
        self, logits: Tensor, targets: Tensor, num_masks: Tensor, draw: DrawPoints
    ) -> tuple[Tensor, Tensor]:
        logits = F.interpolate(
            logits[:, None], size=targets.shape[-2:], mode="bilinear", align_corners=False
        )[:, 0]
        logits, targets = logits.flatten(1), targets.flatten(1)
        return focal_loss(logits, targets, num_masks), dice_loss(logits, targets, num_masks)
