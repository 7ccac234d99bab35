"""From class and mask logits to semantic, panoptic and instance segmentation (paper, sec. 4.1).

Q queries, K classes ("no object" comes after them), H W the output, N what is found. Pure functions
of one image's logits.
"""

from collections.abc import Collection

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor


def semantic_inference(class_logits: Tensor, mask_logits: Tensor) -> Tensor:
    """How much the queries speak for each class at each pixel: (Q,K+1), (Q,H,W) -> (K,H,W)"""
    class_probabilities = class_logits.softmax(-1)[:, :-1]
    return torch.einsum("qk,qhw->khw", class_probabilities, mask_logits.sigmoid())


def panoptic_inference(
    class_logits: Tensor,
    mask_logits: Tensor,
    thing_classes: Collection[int],
    object_mask_threshold: float,
    overlap_threshold: float,
) -> tuple[Tensor, list[dict]]:
    """One segment for each confident query; those of one stuff class become one segment.

    A pixel belongs to the query with the largest class score times mask probability, if its mask
    probability is at least one half.

    Args:
        thing_classes: classes whose instances are told apart.
        object_mask_threshold: queries with a class score up to this are dropped.
        overlap_threshold: queries are dropped that win less than this share of their own mask.
    Returns:
        the segment of each pixel, (H,W) int32 with 0 for none; and the segments, dicts with "id",
        "isthing" and "category_id".
    Shapes: (Q,K+1), (Q,H,W) -> (H,W)
    """
    scores, classes = class_logits.softmax(-1).max(-1)  # (Q,)
    keep = (classes != class_logits.shape[-1] - 1) & (scores > object_mask_threshold)
    scores, classes, masks = scores[keep], classes[keep], mask_logits[keep].sigmoid()
    if len(scores) == 0:
        return mask_logits.new_zeros(mask_logits.shape[-2:], dtype=torch.int32), []

    winner = (scores[:, None, None] * masks).argmax(0)  # (H,W), of the queries kept
    inside = masks.gather(0, winner[None])[0] >= 0.5  # (H,W), of its own mask

    def count(pixels: Tensor) -> Tensor:  # of each query, where it wins: (H,W) bool -> (N,)
        counts = torch.zeros_like(classes)
        return counts.index_add_(0, winner.flatten(), pixels.flatten().to(counts))

    own_areas = (masks >= 0.5).flatten(1).sum(1)
    won_areas, visible_areas = count(torch.ones_like(inside)), count(inside)
    table = torch.stack((classes, own_areas, won_areas, visible_areas), dim=1).tolist()

    segments: list[dict] = []
    stuff_segments: dict[int, int] = {}
    segment_ids = [0] * len(table)  # of each query
    for query, (category, own_area, won_area, visible_area) in enumerate(table):
        if visible_area == 0 or won_area / own_area < overlap_threshold:
            continue
        is_thing = category in thing_classes
        if is_thing or category not in stuff_segments:
            segment_id = len(segments) + 1
            segments.append({"id": segment_id, "isthing": is_thing, "category_id": category})
            if not is_thing:
                stuff_segments[category] = segment_id
        segment_ids[query] = segment_id if is_thing else stuff_segments[category]
    segment_of_query = torch.tensor(segment_ids, dtype=torch.int32, device=winner.device)
    return segment_of_query[winner] * inside, segments


def instance_inference(
    class_logits: Tensor,
    mask_logits: Tensor,
    num_instances: int,
    classes: Collection[int] | None = None,
    score_threshold: float = 0.0,
) -> Instances:
    """The `num_instances` best pairs of query and class; a query may occur with several classes.

    Args:
        num_instances: official key TEST.DETECTIONS_PER_IMAGE.
        classes: of those best pairs, return only the ones of these classes.
        score_threshold: and only those whose final score is at least this.
    Returns:
        pred_masks (N,H,W) bool, pred_boxes tight around them, pred_classes (N,), and scores (N,):
        the class score times the mean probability within the mask.
    Shapes: (Q,K+1), (Q,H,W) -> N instances
    """
    num_classes = class_logits.shape[-1] - 1
    pair_scores = class_logits.softmax(-1)[:, :-1].flatten()  # (Q*K,)
    scores, pairs = pair_scores.topk(min(num_instances, len(pair_scores)))
    labels = pairs % num_classes
    if classes is not None:
        keep = torch.isin(labels, torch.tensor(sorted(classes), device=labels.device))
        scores, pairs, labels = scores[keep], pairs[keep], labels[keep]

    mask_logits = mask_logits[pairs // num_classes]  # (N,H,W)
    masks = mask_logits > 0
    mask_scores = (mask_logits.sigmoid() * masks).flatten(1).sum(1)
    mask_scores = mask_scores / (masks.flatten(1).sum(1) + 1e-6)  # an empty mask has score 0
    scores = scores * mask_scores
    keep = scores >= score_threshold
    masks = masks[keep]

    result = Instances(tuple(masks.shape[-2:]))
    result.pred_masks = masks
    result.pred_boxes = Boxes(tight_boxes(masks))
    result.scores = scores[keep]
    result.pred_classes = labels[keep]
    return result


def tight_boxes(masks: Tensor) -> Tensor:
    """The smallest boxes that hold the masks; zeros for an empty mask.

    A box is x0, y0, x1, y1 in pixels; pixel (x, y) covers [x, x + 1] x [y, y + 1].

    Shapes: (N,H,W) bool -> (N,4) float32
    """

    def extent(occupied: Tensor) -> tuple[Tensor, Tensor]:  # (N,L) bool -> (N,), (N,)
        length = occupied.shape[1]
        steps = torch.arange(length, device=occupied.device)
        first = torch.where(occupied, steps, length).amin(1)
        last = torch.where(occupied, steps, -1).amax(1)
        return first, last + 1

    x0, x1 = extent(masks.any(1))
    y0, y1 = extent(masks.any(2))
    return torch.stack((x0, y0, x1, y1), dim=1) * masks.flatten(1).any(1, keepdim=True).float()
