"""What it costs to match a query with a target, for every pair of an image.

D predictions, Q queries, T targets, P points or pixels of a mask. All predictions may be taken at
once, or one, without D; targets without D are those of all predictions.
"""

import torch.nn.functional as F
from torch import Tensor

from mask2former.modeling.criterion.losses import FOCAL_ALPHA


def class_cost(class_logits: Tensor, labels: Tensor) -> Tensor:
    """Minus the probability of the target's class: (D,Q,K+1), (T,) -> (D,Q,T)"""
    return -class_logits.softmax(-1)[..., labels]


def mask_cost(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean binary cross-entropy of every pair: (D,Q,P), (D,T,P) -> (D,Q,T)"""
    # BCE(x, t) = softplus(x) - x t, so all pairs take one matrix product.
    return (F.softplus(logits).sum(-1, keepdim=True) - logits @ targets.mT) / logits.shape[-1]


def focal_cost(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean focal loss of every pair, for targets of 0 and 1: (D,Q,P), (D,T,P) -> (D,Q,T)"""
    probabilities = logits.sigmoid()
    inside = FOCAL_ALPHA * (1 - probabilities).square() * F.softplus(-logits)  # if the target is 1
    outside = (1 - FOCAL_ALPHA) * probabilities.square() * F.softplus(logits)  # if it is 0
    product = (inside - outside) @ targets.mT
    return (outside.sum(-1, keepdim=True) + product) / logits.shape[-1]


def dice_cost(logits: Tensor, targets: Tensor) -> Tensor:
    """Dice loss of every pair: (D,Q,P), (D,T,P) -> (D,Q,T)"""
    probabilities = logits.sigmoid()
    overlap = 2 * (probabilities @ targets.mT)
    total = probabilities.sum(-1, keepdim=True) + targets.sum(-1)[..., None, :]
    return 1 - (overlap + 1) / (total + 1)
