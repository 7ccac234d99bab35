"""The losses of matched masks and of classes (paper, sec. 3.3 and 4.1).

D predictions, N masks, P points or pixels of each, B batch, Q queries, K classes. Losses keep the
leading dimensions: those of the D predictions may be taken at once, or of one, without D.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

FOCAL_ALPHA = 0.25  # share of the loss of a target's inside; the outside has the rest (RetinaNet)


def mask_loss(logits: Tensor, targets: Tensor, num_masks: Tensor | float) -> Tensor:
    """Binary cross-entropy, averaged over a mask's points; the sum over masks by `num_masks`.

    Shapes: (D,N,P), (D,N,P) in [0, 1] -> (D,)
    """
    loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return loss.mean(-1).sum(-1) / num_masks


def focal_loss(logits: Tensor, targets: Tensor, num_masks: Tensor | float) -> Tensor:
    """Cross-entropy that forgives what is nearly right (RetinaNet, sec. 3; MaskFormer's mask loss).

    As `mask_loss`, but each pixel counts by the square of the probability that it is wrong, and by
    FOCAL_ALPHA.

    Shapes: (D,N,P), (D,N,P) of 0 and 1 or bool -> (D,)
    """
    inside = targets > 0
    wrong = torch.where(inside, -logits, logits)
    share = (1 - FOCAL_ALPHA) + (2 * FOCAL_ALPHA - 1) * inside
    loss = share * wrong.sigmoid().square() * F.softplus(wrong)
    return loss.mean(-1).sum(-1) / num_masks


def dice_loss(logits: Tensor, targets: Tensor, num_masks: Tensor | float) -> Tensor:
    """1 - the overlap of prediction and target (V-Net's dice); the sum over masks by `num_masks`.

    Shapes: (D,N,P), (D,N,P) in [0, 1] or bool -> (D,)
    """
    probabilities = logits.sigmoid()
    overlap = 2 * (probabilities * targets).sum(-1)
    total = probabilities.sum(-1) + targets.sum(-1)
    # The ones keep a mask of which no point was hit from dividing by zero.
    return (1 - (overlap + 1) / (total + 1)).sum(-1) / num_masks


def class_loss(logits: Tensor, targets: Tensor, weight: Tensor, normalizer: Tensor) -> Tensor:
    """Cross-entropy weighted by class; the sum over queries by `normalizer`.

    The normalizer of torch's own mean is `weight[targets].sum()`.

    Shapes: (D,B,Q,K+1), (D,B,Q), (K+1), (D,) -> (D,)
    """
    weight = weight.to(logits.dtype)
    loss = F.cross_entropy(logits.flatten(0, -2), targets.flatten(), weight, reduction="none")
    return loss.view(targets.shape).sum((-2, -1)) / normalizer
