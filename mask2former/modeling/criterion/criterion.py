"""The training objective: match, then compare, for the prediction of every layer (paper, sec. 3.3).

B batch, Q queries, K classes, D supervised predictions (one a decoder layer), T targets of an
image, N of the batch, M matched pairs of the batch.
"""

from collections.abc import Sequence
from functools import partial

import torch
import torch.distributed as dist
from detectron2.utils import comm
from torch import Tensor, nn

from mask2former.device import full_precision
from mask2former.layers.point_sampling import random_points
from mask2former.modeling.criterion.losses import class_loss
from mask2former.modeling.criterion.mask_comparison import MaskComparison
from mask2former.modeling.criterion.matcher import HungarianMatcher, Matches
from mask2former.modeling.criterion.predicted_masks import (
    PredictedMasks,
    predicted_masks,
    without_halves,
)


def mean_over_ranks(x: Tensor) -> Tensor:
    """The mean of `x` over all processes; `x` itself if there is one."""
    if comm.get_world_size() == 1:
        return x
    total = x.clone()
    dist.all_reduce(total)
    return total / comm.get_world_size()


def query_slots(matches: Matches, num_queries: int) -> Tensor:
    """Where the matched queries are, counted through the batch: (D,M)"""
    return matches.image * num_queries + matches.query


class SetCriterion(nn.Module):
    """Weighted losses of a set of (class, mask) predictions against a set of targets."""

    def __init__(
        self,
        num_classes: int,
        *,
        class_weight: float,
        mask_weight: float,
        dice_weight: float,
        no_object_weight: float,
        deep_supervision: bool,
        comparison: MaskComparison,
        class_weights: Sequence[float] | None = None,
        class_norm_over_ranks: bool = False,
    ):
        """
        Args:
            class_weight, mask_weight, dice_weight: of the losses, and of the costs in matching.
            no_object_weight: of queries without a target, relative to those with one.
            deep_supervision: supervise the predictions of all layers, else of the last only.
            comparison: of predicted with target masks, in matching and in the losses.
            class_weights: of each of the K classes in the class loss; None: 1 each.
            class_norm_over_ranks: divide the class loss by the mean over the ranks of the summed
                weights; else, as in the official code, by the rank's own.

        Raises:
            ValueError: there are not K class weights.
        """
        super().__init__()
        self.num_classes = num_classes
        self.weight_dict = {
            "loss_ce": class_weight,
            "loss_mask": mask_weight,
            "loss_dice": dice_weight,
        }
        self.matcher = HungarianMatcher(class_weight, mask_weight, dice_weight, comparison)
        self.deep_supervision = deep_supervision
        self.comparison = comparison
        self.class_norm_over_ranks = class_norm_over_ranks
        class_weights = [1.0] * num_classes if class_weights is None else class_weights
        if len(class_weights) != num_classes:
            raise ValueError(
                f"{len(class_weights)} class weights, but {num_classes} classes; give one for each"
            )
        empty_weight = torch.tensor([*class_weights, no_object_weight], dtype=torch.float32)
        self.register_buffer("empty_weight", empty_weight)  # official key

    def forward(
        self,
        outputs: dict,
        targets: Sequence[dict[str, Tensor]],
        generators: Sequence[torch.Generator | None] | None = None,
    ) -> dict[str, Tensor]:
        """
        Args:
            outputs: "pred_logits" (B,Q,K+1), "pred_masks" (B,Q,H,W) or, instead, "mask_embed"
                (B,Q,C) and "pixel_feature" (B,C,H,W), "aux_outputs": the same of earlier layers.
            targets: of each image "labels" (T,) int64 and "masks" (T,H',W'), bool or float, all
                of one size H' W': that of the padded batch.
            generators: where the random points of each image come from; None is torch's global one.
        Returns:
            loss_ce, loss_mask, loss_dice of the last layer; with the suffix _i those of layer i.
        """
        predictions = [outputs]
        suffixes = [""]
        if self.deep_supervision:
            predictions += outputs["aux_outputs"]
            suffixes += [f"_{i}" for i in range(len(outputs["aux_outputs"]))]
        class_logits = torch.stack([p["pred_logits"] for p in predictions])  # (D,B,Q,K+1)
        generators = generators or [None] * len(targets)

        with full_precision(class_logits.device.type):
            class_logits = without_halves(class_logits)
            predicted = predicted_masks(predictions)
            labels, masks = [t["labels"] for t in targets], [t["masks"] for t in targets]
            matches = self.matcher(class_logits, predicted, labels, masks, generators)
            labels, masks = torch.cat(labels), torch.cat(masks)  # (N,), (N,H',W')

            class_targets = self.class_targets(matches, labels, class_logits.shape[:3])
            num_masks, class_norms = self.normalizers(len(labels), class_targets)
            class_losses = class_loss(class_logits, class_targets, self.empty_weight, class_norms)
            # Of each image's masks; its points are drawn for them only, see random_points.
            num_matched = [min(len(t["labels"]), class_logits.shape[2]) for t in targets]
            mask_losses, dice_losses = self.mask_losses(
                predicted, masks, matches, num_matched, num_masks, generators
            )
        terms = {"loss_ce": class_losses, "loss_mask": mask_losses, "loss_dice": dice_losses}
        terms = {name: (self.weight_dict[name] * terms[name]).unbind() for name in terms}
        return {
            name + suffix: losses[index]
            for index, suffix in enumerate(suffixes)
            for name, losses in terms.items()
        }

    def class_targets(self, matches: Matches, labels: Tensor, size: Sequence[int]) -> Tensor:
        """The class that each query should predict: (D,M) pairs, (N,), (D,B,Q) -> (D,B,Q)"""
        targets = labels.new_full(tuple(size), self.num_classes)
        slots = query_slots(matches, size[-1])
        return targets.flatten(1).scatter(1, slots, labels[matches.target]).view(targets.shape)

    def normalizers(self, num_targets: int, class_targets: Tensor) -> tuple[Tensor, Tensor]:
        """What the mask losses, and the class loss of each prediction, are divided by.

        Shapes: (), (D,B,Q) -> (), (D,)
        """
        weights = self.empty_weight[class_targets].sum((1, 2))  # (D,)
        counts = mean_over_ranks(torch.cat((weights.new_full((1,), num_targets), weights)))
        num_masks = counts[0].clamp(min=1)  # a batch may have no targets at all
        return num_masks, counts[1:] if self.class_norm_over_ranks else weights

    def mask_losses(
        self,
        predicted: PredictedMasks,
        masks: Tensor,
        matches: Matches,
        num_matched: Sequence[int],
        num_masks: Tensor,
        generators: Sequence[torch.Generator | None],
    ) -> tuple[Tensor, Tensor]:
        """Losses of the matched masks: (N,H',W'), (D,M) pairs, () -> (D,), (D,)"""
        slots = query_slots(matches, predicted.num_queries)
        select = partial(predicted.of_queries, slots=slots, num_matched=num_matched)
        if sum(num_matched) == 0:
            # In the graph: every process has a gradient for every parameter.
            zeros = select(slice(None)).flatten(1).sum(1)
            return zeros, zeros
        draw = partial(random_points, num_matched, generators=generators, device=slots.device)
        return self.comparison.losses(select, masks, matches.target, num_masks, draw)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        # The config tells the weights; a checkpoint may have been trained with others.
        state_dict[f"{prefix}empty_weight"] = self.empty_weight
        super()._load_from_state_dict(state_dict, prefix, *args)
