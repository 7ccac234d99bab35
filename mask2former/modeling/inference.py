"""From class and mask logits to semantic, panoptic and instance segmentation (paper, sec. 4.1).

Q queries, K classes ("no object" comes after them), h w the stride-4 grid, H W the output, N what
is found, n the masks of a chunk. Pure functions of one image's logits; nothing has gradients.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor
from torch.nn import functional as F

from mask2former.layers.chunks import chunks
from mask2former.layers.packed_masks import PackedMasks

# The masks of a chunk have so many bytes, or there is one: on a CPU what its caches hold and the
# allocator keeps for the next chunk, elsewhere enough for the device to be busy with one operation.
CHUNK_BYTES_ON_CPU = 16 * 2**20
CHUNK_BYTES_ON_DEVICE = 128 * 2**20


@dataclass(frozen=True)
class QueryMasks:
    """The masks of all queries, and their way to the output: the padded input, cut to the image.

    Masks at the output's size are what takes memory and time. So each result asks for those alone
    that it is made of, gets them a few at a time, and keeps of them as little as it can.
    """

    logits: Tensor  # (Q,h,w), of the padded input
    padded_size: tuple[int, int]
    image_size: tuple[int, int]  # of the network's input, without the padding
    output_size: tuple[int, int]

    @property
    def device(self) -> torch.device:
        return self.logits.device

    def to(self, device: torch.device | str) -> QueryMasks:
        return replace(self, logits=self.logits.to(device))

    def chunks(self, queries: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """The masks of some queries at the output's size, for the caller to do with as it likes.

        Shapes: indices (N,) -> of each chunk its place in them, and its logits (n,H,W), float32
        """
        dtype = torch.promote_types(self.logits.dtype, torch.float32)
        num_pixels = max(height * width for height, width in (self.padded_size, self.output_size))
        on_cpu = self.device.type == "cpu"
        budget = CHUNK_BYTES_ON_CPU if on_cpu else CHUNK_BYTES_ON_DEVICE
        height, width = self.image_size
        for part in chunks(len(queries), num_pixels * dtype.itemsize, budget):
            masks = resize(self.logits.index_select(0, queries[part]).to(dtype), self.padded_size)
            yield part, resize(masks[:, :height, :width], self.output_size)


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear interpolation: (N,*,*) -> (N,H,W)

    Each map is an image of its own: torch rounds channels differently by how many there are.
    """
    if tuple(maps.shape[1:]) == tuple(size):  # it would change nothing
        return maps.contiguous()
    return F.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def semantic_inference(class_logits: Tensor, masks: QueryMasks) -> Tensor:
    """How much the queries speak for each class at each pixel: (Q,K+1) -> (K,H,W)"""
    class_probabilities = class_logits.softmax(-1)[:, :-1].T  # (K,Q)
    num_classes, num_queries = class_probabilities.shape
    height, width = masks.output_size
    scores = class_logits.new_zeros(num_classes, height * width)
    # A product reads and writes all scores, so it is of many masks: of as many as of classes.
    gathered = torch.empty_like(scores[:num_queries])
    for queries in torch.arange(num_queries, device=masks.device).split(num_classes):
        inside = gathered[: len(queries)]
        for part, logits in masks.chunks(queries):
            torch.sigmoid(logits.flatten(1), out=inside[part])
        scores.addmm_(class_probabilities[:, queries], inside)
    return scores.view(num_classes, height, width)


def panoptic_inference(
    class_logits: Tensor,
    masks: QueryMasks,
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
    Shapes: (Q,K+1) -> (H,W)
    """
    scores, classes = class_logits.softmax(-1).max(-1)  # (Q,)
    is_kept = (classes != class_logits.shape[-1] - 1) & (scores > object_mask_threshold)
    kept = is_kept.nonzero()[:, 0]
    if len(kept) == 0:
        return class_logits.new_zeros(masks.output_size, dtype=torch.int32), []

    winner, inside, own_areas = _winners(masks, kept, scores[kept])
    places = (2 * winner + inside).flatten()  # (H*W,): out of or in the mask of the winner
    one_each = own_areas.new_ones(1).expand(len(places))
    areas = own_areas.new_zeros(2 * len(kept)).index_add_(0, places, one_each).view(-1, 2)
    table = torch.stack((classes[kept], own_areas, areas.sum(1), areas[:, 1]), dim=1).tolist()

    segments: list[dict] = []
    stuff_segments: dict[int, int] = {}
    segment_ids = [[0, 0] for _ in table]  # of each place
    for query, (category, own_area, won_area, visible_area) in enumerate(table):
        if visible_area == 0 or won_area / own_area < overlap_threshold:
            continue
        is_thing = category in thing_classes
        if is_thing or category not in stuff_segments:
            segment_id = len(segments) + 1
            segments.append({"id": segment_id, "isthing": is_thing, "category_id": category})
            if not is_thing:
                stuff_segments[category] = segment_id
        segment_ids[query][1] = segment_id if is_thing else stuff_segments[category]
    segment_of_place = torch.tensor(segment_ids, dtype=torch.int32, device=places.device).flatten()
    return segment_of_place.index_select(0, places).view(winner.shape), segments


def _winners(masks: QueryMasks, kept: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Which of the queries kept has the largest score times mask probability, the first of equals.

    Shapes: (N,), (N,) -> winner (H,W) int32, whether it is in its own mask (H,W), own areas (N,)
    """
    best = scores.new_full(masks.output_size, -1.0)
    winner = torch.zeros_like(best, dtype=torch.int32)
    inside = torch.zeros_like(best, dtype=torch.bool)
    own_areas = torch.zeros_like(kept)
    for part, logits in masks.chunks(kept):
        # One by one, which takes little memory. And where torch rounds otherwise, as it does with a
        # tensor's last few numbers, it does so at the same pixels of all masks.
        for query, values in enumerate(logits, part.start):
            own = values.sigmoid_() >= 0.5
            wins = values.mul_(scores[query]) > best
            torch.maximum(values, best, out=best)
            winner.masked_fill_(wins, query)
            torch.where(wins, own, inside, out=inside)
            own_areas[query] = own.count_nonzero()
    return winner, inside, own_areas


def instance_inference(
    class_logits: Tensor,
    masks: QueryMasks,
    num_instances: int,
    classes: Collection[int] | None = None,
    score_threshold: float = 0.0,
    pack_masks: bool = False,
) -> Instances:
    """The `num_instances` best pairs of query and class; a query may occur with several classes.

    Args:
        num_instances: official key TEST.DETECTIONS_PER_IMAGE.
        classes: of those best pairs, return only the ones of these classes.
        score_threshold: and only those whose final score is at least this.
        pack_masks: pred_masks are PackedMasks.
    Returns:
        pred_masks (N,H,W) bool, pred_boxes tight around them, pred_classes (N,), and scores (N,):
        the class score times the mean probability within the mask.
    Shapes: (Q,K+1) -> N instances
    """
    num_classes = class_logits.shape[-1] - 1
    pair_scores = class_logits.softmax(-1)[:, :-1].flatten()  # (Q*K,)
    scores, pairs = pair_scores.topk(min(num_instances, len(pair_scores)))
    labels = pairs % num_classes
    if classes is not None:
        keep = torch.isin(labels, torch.tensor(sorted(classes), device=labels.device))
        scores, pairs, labels = scores[keep], pairs[keep], labels[keep]

    queries, query_of_pair = (pairs // num_classes).unique(return_inverse=True)
    # All that stays is allocated before the chunks: between them it would scatter free memory.
    shape = len(queries), *masks.output_size
    zeros = PackedMasks.zeros if pack_masks else partial(torch.zeros, dtype=torch.bool)
    found = zeros(shape, device=masks.device)
    boxes, means = scores.new_zeros(len(queries), 4), scores.new_zeros(len(queries))
    for part, logits in masks.chunks(queries):
        inside = logits > 0
        found[part] = inside
        boxes[part] = tight_boxes(inside)
        areas = inside.sum(2, dtype=torch.int32).sum(1)  # of all pixels at once is slow
        sums = logits.sigmoid_().mul_(inside).flatten(1).sum(1)
        means[part] = sums / (areas + 1e-6)  # of an empty mask 0

    scores = scores * means[query_of_pair]
    keep = scores >= score_threshold
    which = query_of_pair[keep]
    return Instances(
        tuple(masks.output_size),
        pred_masks=found[which],
        pred_boxes=Boxes(boxes[which]),
        scores=scores[keep],
        pred_classes=labels[keep],
    )


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
