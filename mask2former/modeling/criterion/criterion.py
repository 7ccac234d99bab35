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
from mask2former.modeling.criterion.mask_comparison import DrawPoints, MaskComparison
from mask2former.modeling.criterion.matcher import HungarianMatcher, Matches


def mean_over_ranks(x: Tensor) -> Tensor:
    """The mean of `x` over all processes; `x` itself if there is one."""
    if comm.get_world_size() == 1:
        return x
    total = x.clone()
    dist.all_reduce(total)
    return total / comm.get_world_size()


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
            outputs: "pred_logits" (B,Q,K+1), "pred_masks" (B,Q,H,W), "aux_outputs": the same of
                earlier layers.
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
        mask_logits = [p["pred_masks"] for p in predictions]  # D x (B,Q,H,W)
        generators = generators or [None] * len(targets)

        with full_precision(class_logits.device.type):
            class_logits = class_logits.float()
            labels = [t["labels"] for t in targets]
            all_labels = torch.cat(labels)  # (N,)
            all_masks = torch.cat([t["masks"] for t in targets]).float()  # (N,H',W')
            masks = all_masks.split([len(image_labels) for image_labels in labels])
            matches = self.matcher(class_logits, mask_logits, labels, masks, generators)

            class_targets = torch.stack(
                [self.class_targets(m, all_labels, class_logits.shape[1:3]) for m in matches]
            )  # (D,B,Q)
            num_masks, *class_norms = self.normalizers(len(all_labels), class_targets)
            # An image's points are drawn for its own masks only; see random_points.
            num_matched = [min(len(image_labels), class_logits.shape[2]) for image_labels in labels]
            draw = partial(
                random_points, num_matched, generators=generators, device=class_logits.device
            )

            losses = {}
            for index, suffix in enumerate(suffixes):
                terms = {
                    "loss_ce": class_loss(
                        class_logits[index],
                        class_targets[index],
                        self.empty_weight,
                        class_norms[index],
                    ),
                    **self.mask_losses(
                        mask_logits[index], all_masks, matches[index], num_masks, draw
                    ),
                }
                for name, loss in terms.items():
                    losses[name + suffix] = self.weight_dict[name] * loss
        return losses

    def class_targets(self, matches: Matches, labels: Tensor, size: Sequence[int]) -> Tensor:
        """The class that each query should predict: M pairs, (N,), (B,Q) -> (B,Q)"""
        targets = labels.new_full(tuple(size), self.num_classes)
        targets[matches.image, matches.query] = labels[matches.target]
        return targets

    def normalizers(self, num_targets: int, class_targets: Tensor) -> Tensor:
        """What the mask losses, and the class loss of each prediction, are divided by.

        Shapes: (), (D,B,Q) -> (1+D,)
        """
        weights = self.empty_weight[class_targets].sum((1, 2))  # (D,)
        counts = mean_over_ranks(torch.cat((weights.new_full((1,), num_targets), weights)))
        num_masks = counts[:1].clamp(min=1)  # a batch may have no targets at all
        return torch.cat((num_masks, counts[1:] if self.class_norm_over_ranks else weights))

    def mask_losses(
        self,
        mask_logits: Tensor,
        masks: Tensor,
        matches: Matches,
        num_masks: Tensor,
        draw: DrawPoints,
    ) -> dict[str, Tensor]:
        """Losses of the matched masks: (B,Q,H,W), (N,H',W'), M pairs, () -> (), ()"""
        matched = mask_logits[matches.image, matches.query].float()  # (M,H,W)
        if len(matched) == 0:
            zero = matched.sum()  # in the graph: every process has a gradient for every parameter
            return {"loss_mask": zero, "loss_dice": zero}
        mask_loss, dice_loss = self.comparison.losses(
            matched, masks[matches.target], num_masks, draw
        )
        return {"loss_mask": mask_loss, "loss_dice": dice_loss}

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        # The config tells the weights; a checkpoint may have been trained with others.
        state_dict[f"{prefix}empty_weight"] = self.empty_weight
        super()._load_from_state_dict(state_dict, prefix, *args)
