"""Inputs of inference, and its formulas applied to all masks at once, at the output's size."""

from collections import Counter

import torch
import torch.nn.functional as F

from mask2former.modeling.inference import QueryMasks, tight_boxes

QUERIES, CLASSES = 11, 4
THINGS = {0, 2}

# grid -> padded input -> image -> output. (Where height and width are 128 together or less, torch
# rounds the masks of several channels otherwise than those of one, which is what we compare.)
GEOMETRIES = {
    "as_it_is": ((16, 24), (64, 96), (64, 96), (64, 96)),
    "padded": ((16, 24), (64, 96), (50, 77), (50, 77)),
    "larger": ((16, 24), (64, 96), (50, 77), (81, 131)),
    "smaller": ((16, 24), (64, 96), (64, 90), (59, 71)),
}


def full_size(mask_logits):
    """Masks that have the output's size already: (Q,H,W)"""
    size = tuple(mask_logits.shape[1:])
    return QueryMasks(mask_logits, size, size, size)


def make_case(geometry="padded", seed=0, queries=QUERIES, ties=False):
    """Class logits (Q,K+1), and smooth masks on the grid; `ties`: many that are the same."""
    g = torch.Generator().manual_seed(seed)
    grid, padded_size, image_size, output_size = GEOMETRIES[geometry]
    class_logits = 3 * torch.randn(queries, CLASSES + 1, generator=g)
    noise = torch.randn(1, queries, 4, 6, generator=g)
    mask_logits = 5 * F.interpolate(noise, grid, mode="bilinear")[0]
    if ties:
        same = torch.randint(0, 3, (queries,), generator=g)
        class_logits, mask_logits = class_logits[same], (2 * mask_logits).round()[same]
    return class_logits, QueryMasks(mask_logits, padded_size, image_size, output_size)


def all_at_once(masks):
    """Two interpolations of everything: (Q,H,W) logits"""
    padded = F.interpolate(masks.logits[None].float(), masks.padded_size, mode="bilinear")
    height, width = masks.image_size
    return F.interpolate(padded[:, :, :height, :width], masks.output_size, mode="bilinear")[0]


def semantic_of_all(class_logits, masks):
    probabilities = class_logits.softmax(-1)[:, :-1]
    return torch.einsum("qk,qhw->khw", probabilities, all_at_once(masks).sigmoid())


def panoptic_of_all(class_logits, masks, things, object_threshold, overlap_threshold):
    scores, classes = class_logits.softmax(-1).max(-1)
    logits = all_at_once(masks)
    keep = [
        q
        for q, (score, category) in enumerate(zip(scores.tolist(), classes.tolist()))
        if category != class_logits.shape[1] - 1 and score > object_threshold
    ]
    ids, segments, stuff = torch.zeros(masks.output_size, dtype=torch.int32), [], {}
    if not keep:
        return ids, segments
    # Of each mask alone, as torch rounds the last few numbers of a tensor otherwise.
    probabilities = torch.stack([mask.sigmoid() for mask in logits[keep]])
    winner = (scores[keep][:, None, None] * probabilities).argmax(0)
    for n, query in enumerate(keep):
        category = classes[query].item()
        own, won = probabilities[n] >= 0.5, winner == n
        if not (own & won).any() or won.sum().item() / own.sum().item() < overlap_threshold:
            continue
        is_thing = category in things
        if is_thing or category not in stuff:
            stuff[category] = len(segments) + 1
            segments.append({"id": len(segments) + 1, "isthing": is_thing, "category_id": category})
        ids[own & won] = len(segments) if is_thing else stuff[category]
    return ids, segments


def instances_of_all(class_logits, masks, num_instances, classes=None, score_threshold=0.0):
    """Scores, classes, masks, boxes."""
    num_classes = class_logits.shape[1] - 1
    probabilities = class_logits.softmax(-1)[:, :-1].flatten()
    scores, pairs = probabilities.topk(min(num_instances, len(probabilities)))
    if classes is not None:
        keep = [i for i, pair in enumerate(pairs.tolist()) if pair % num_classes in classes]
        scores, pairs = scores[keep], pairs[keep]
    logits = all_at_once(masks)[pairs // num_classes]
    found = logits > 0
    scores = scores * ((logits.sigmoid() * found).sum((1, 2)) / (found.sum((1, 2)) + 1e-6))
    keep = scores >= score_threshold
    found = found[keep]
    return scores[keep], (pairs % num_classes)[keep], found, tight_boxes(found)


def count_growing(monkeypatch):
    """A counter of how many maps are interpolated, by their new size."""
    counts = Counter()
    interpolate = F.interpolate

    def counted(maps, size, **options):
        counts[tuple(size)] += len(maps)
        return interpolate(maps, size, **options)

    monkeypatch.setattr(F, "interpolate", counted)
    return counts
