import math

import numpy as np
import pytest
import torch
from inference_cases import full_size

from mask2former.modeling.inference import (
    instance_inference,
    panoptic_inference,
    semantic_inference,
    tight_boxes,
)

QUERIES, CLASSES, HEIGHT, WIDTH = 7, 4, 6, 9
THINGS = {0, 2}


def make_logits(seed=0):
    torch.manual_seed(seed)
    class_logits = torch.randn(QUERIES, CLASSES + 1, dtype=torch.float64) * 3
    mask_logits = torch.randn(QUERIES, HEIGHT, WIDTH, dtype=torch.float64) * 2
    return class_logits, mask_logits


def instances_of(class_logits, mask_logits, *options):
    return instance_inference(class_logits, full_size(mask_logits), *options)


def softmax(row):
    exponentials = np.exp(row - row.max())
    return exponentials / exponentials.sum()


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_semantic_agrees_with_loops():
    class_logits, mask_logits = make_logits()
    expected = np.zeros((CLASSES, HEIGHT, WIDTH))
    for q in range(QUERIES):
        probabilities = softmax(class_logits[q].numpy())
        for k, y, x in np.ndindex(*expected.shape):
            expected[k, y, x] += probabilities[k] * sigmoid(mask_logits[q, y, x].item())
    np.testing.assert_allclose(
        semantic_inference(class_logits, full_size(mask_logits)).numpy(), expected
    )


def panoptic_with_loops(class_logits, mask_logits, object_threshold, overlap_threshold):
    kept = []
    for q in range(QUERIES):
        probabilities = softmax(class_logits[q].numpy())
        category = int(probabilities.argmax())
        if category < CLASSES and probabilities[category] > object_threshold:
            kept.append((q, category, probabilities[category]))
    owner = np.full((HEIGHT, WIDTH), -1)
    for y, x in np.ndindex(HEIGHT, WIDTH):
        best = -1.0
        for q, _, score in kept:
            value = score * sigmoid(mask_logits[q, y, x].item())
            if value > best:
                best, owner[y, x] = value, q
    result = np.zeros((HEIGHT, WIDTH), dtype=int)
    segments, stuff = [], {}
    for q, category, _ in kept:
        own = mask_logits[q].numpy() >= 0
        won = owner == q
        if not (own & won).any() or won.sum() / own.sum() < overlap_threshold:
            continue
        if category in THINGS or category not in stuff:
            stuff[category] = len(segments) + 1
            segments.append(
                {"id": len(segments) + 1, "isthing": category in THINGS, "category_id": category}
            )
        result[own & won] = len(segments) if category in THINGS else stuff[category]
    return result, segments


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("thresholds", [(0.0, 0.0), (0.5, 0.4), (0.8, 0.8)])
def test_panoptic_agrees_with_loops(seed, thresholds):
    class_logits, mask_logits = make_logits(seed)
    expected, expected_segments = panoptic_with_loops(class_logits, mask_logits, *thresholds)
    result, segments = panoptic_inference(class_logits, full_size(mask_logits), THINGS, *thresholds)
    assert result.dtype == torch.int32
    np.testing.assert_array_equal(result.numpy(), expected)
    assert segments == expected_segments


def test_panoptic_merges_stuff_and_separates_things():
    class_logits = torch.full((4, CLASSES + 1), -9.0)
    mask_logits = torch.full((4, 1, 4), -9.0)
    for query, category in enumerate((1, 0, 0, 1)):
        class_logits[query, category] = 9
        mask_logits[query, 0, query] = 9
    result, segments = panoptic_inference(class_logits, full_size(mask_logits), THINGS, 0.8, 0.8)
    assert result.tolist() == [[1, 2, 3, 1]]
    assert [s["category_id"] for s in segments] == [1, 0, 0]


def test_panoptic_of_nothing():
    class_logits = torch.zeros(QUERIES, CLASSES + 1)
    class_logits[:, -1] = 9
    result, segments = panoptic_inference(
        class_logits, full_size(torch.randn(QUERIES, HEIGHT, WIDTH)), THINGS, 0.0, 0.0
    )
    assert segments == [] and result.shape == (HEIGHT, WIDTH) and not result.any()


@pytest.mark.parametrize("classes", [None, THINGS])
def test_instances_agree_with_loops(classes):
    class_logits, mask_logits = make_logits()
    pairs = [
        (softmax(class_logits[q].numpy())[k], q, k) for q in range(QUERIES) for k in range(CLASSES)
    ]
    expected = []
    for probability, q, k in sorted(pairs, reverse=True)[:12]:
        inside = [sigmoid(x) for x in mask_logits[q].flatten().tolist() if x > 0]
        if classes is None or k in classes:
            expected.append((probability * sum(inside) / (len(inside) + 1e-6), k, q))
    result = instances_of(class_logits, mask_logits, 12, classes)
    np.testing.assert_allclose(result.scores.numpy(), [e[0] for e in expected])
    assert result.pred_classes.tolist() == [e[1] for e in expected]
    assert torch.equal(result.pred_masks, mask_logits[[e[2] for e in expected]] > 0)
    assert torch.equal(result.pred_boxes.tensor, tight_boxes(result.pred_masks))
    assert result.image_size == (HEIGHT, WIDTH)


def test_no_more_instances_than_pairs():
    assert len(instances_of(*make_logits(), 1000)) == QUERIES * CLASSES


@pytest.mark.parametrize(("threshold", "count"), [(0.0, 12), (0.1, 10), (0.3, 6), (1.1, 0)])
def test_instances_that_score_too_little_are_dropped(threshold, count):
    everything = instances_of(*make_logits(), 12)
    result = instances_of(*make_logits(), 12, None, threshold)
    keep = everything.scores >= threshold
    assert len(result) == keep.sum() == count and result.image_size == (HEIGHT, WIDTH)
    for name, value in everything[keep].get_fields().items():
        value = getattr(value, "tensor", value)
        assert torch.equal(getattr(result.get(name), "tensor", result.get(name)), value)


def test_a_score_equal_to_the_threshold_is_kept():
    best = instances_of(*make_logits(), 12).scores.max().item()
    assert len(instances_of(*make_logits(), 12, None, best)) == 1


def test_instance_with_an_empty_mask_has_score_zero():
    class_logits, mask_logits = make_logits()
    result = instances_of(class_logits, -mask_logits.abs(), 5)
    assert (result.scores == 0).all() and (result.pred_boxes.tensor == 0).all()


def test_boxes_are_tight():
    rng = np.random.default_rng(0)
    masks = np.zeros((20, 11, 13), dtype=bool)
    for mask in masks[1:]:
        mask[rng.integers(0, 11, 3), rng.integers(0, 13, 3)] = True
    expected = np.zeros((20, 4))
    for n, mask in enumerate(masks[1:], start=1):
        rows, columns = np.nonzero(mask)
        expected[n] = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    boxes = tight_boxes(torch.from_numpy(masks))
    assert boxes.dtype == torch.float32
    np.testing.assert_array_equal(boxes.numpy(), expected)


def test_boxes_of_no_masks():
    assert tight_boxes(torch.zeros(0, 4, 4, dtype=torch.bool)).shape == (0, 4)
