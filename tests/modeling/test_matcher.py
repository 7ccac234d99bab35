import itertools
import math

import numpy as np
import pytest
import torch

from mask2former.modeling.criterion.costs import class_cost, dice_cost, focal_cost, mask_cost
from mask2former.modeling.criterion.mask_comparison import AtPoints
from mask2former.modeling.criterion.matcher import HungarianMatcher, assign
from mask2former.modeling.criterion.predicted_masks import GivenMasks


def make_matcher(num_points, *weights):
    return HungarianMatcher(*(weights or (1.0, 1.0, 1.0)), AtPoints(num_points, 3.0, 0.75))


def match(num_points, class_logits, mask_logits, labels, masks):
    """For one prediction."""
    predicted = GivenMasks([mask_logits])
    generators = [None] * len(labels)
    return make_matcher(num_points)(class_logits[None], predicted, labels, masks, generators)


def test_costs_agree_with_loops():
    torch.manual_seed(0)
    class_logits = torch.randn(4, 6, dtype=torch.float64)
    labels = torch.tensor([2, 0, 2])
    logits = torch.randn(4, 9, dtype=torch.float64) * 4
    targets = torch.rand(3, 9, dtype=torch.float64)
    results = (
        class_cost(class_logits, labels),
        mask_cost(logits, targets),
        dice_cost(logits, targets),
        focal_cost(logits, targets.round()),
    )
    for q, t in itertools.product(range(4), range(3)):
        exponentials = [math.exp(x) for x in class_logits[q].tolist()]
        probability = exponentials[labels[t]] / sum(exponentials)
        p = [1 / (1 + math.exp(-x)) for x in logits[q].tolist()]
        y = targets[t].tolist()
        bce = -sum(b * math.log(a) + (1 - b) * math.log(1 - a) for a, b in zip(p, y)) / 9
        dice = 1 - (2 * sum(a * b for a, b in zip(p, y)) + 1) / (sum(p) + sum(y) + 1)
        focal = sum(
            -0.25 * (1 - a) ** 2 * math.log(a) if b > 0.5 else -0.75 * a**2 * math.log(1 - a)
            for a, b in zip(p, y)
        )
        expected = [-probability, bce, dice, focal / 9]
        np.testing.assert_allclose([r[q, t].item() for r in results], expected, rtol=1e-10)


@pytest.mark.parametrize(("num_queries", "num_targets"), [(5, 3), (4, 4), (3, 5), (4, 1)])
def test_assignment_is_the_cheapest_of_all(num_queries, num_targets):
    cost = np.random.default_rng(0).normal(size=(num_queries, num_targets)).astype(np.float32)
    queries, targets = assign(cost)
    rows = cost if num_queries < num_targets else cost.T  # each row is paired
    candidates = itertools.permutations(range(rows.shape[1]), rows.shape[0])
    cheapest = min(sum(float(row[i]) for row, i in zip(rows, chosen)) for chosen in candidates)
    assert math.isclose(cost[queries, targets].astype(float).sum(), cheapest, rel_tol=1e-12)
    assert len(set(queries)) == len(set(targets)) == min(num_queries, num_targets)
    assert list(targets) == sorted(targets)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_costs_that_are_not_finite_are_the_last_choice(bad):
    cost = np.array([[bad, bad], [3.0, bad], [1.0, 2.0]], dtype=np.float32)
    queries, targets = assign(cost)
    # Target 1 has a finite cost with query 2 only, which leaves query 1 for target 0.
    assert list(zip(queries, targets)) == [(1, 0), (2, 1)]
    assert len(assign(np.full((3, 2), bad, dtype=np.float32))[0]) == 2


def make_batch(num_targets, num_queries=6, size=(8, 10)):
    """Targets, and logits under which query 2 t + 1 of an image is right about its target t."""
    torch.manual_seed(0)
    masks, labels = [], []
    class_logits = torch.zeros(len(num_targets), num_queries, 5)
    mask_logits = torch.full((len(num_targets), num_queries, *size), -8.0)
    for image, count in enumerate(num_targets):
        masks.append(torch.rand(count, *size) < 0.5)
        labels.append(torch.randint(0, 4, (count,)))
        for t in range(count):
            class_logits[image, 2 * t + 1, labels[image][t]] = 6
            mask_logits[image, 2 * t + 1] = masks[image][t] * 16 - 8
    return class_logits, mask_logits, labels, masks


def test_matches_of_a_batch_find_the_right_queries():
    class_logits, mask_logits, labels, masks = make_batch([2, 0, 3])
    matcher = make_matcher(200)
    matches = matcher(
        torch.stack((class_logits, class_logits.flip(1))),
        GivenMasks([mask_logits, mask_logits.flip(1)]),
        labels,
        masks,
        [None] * 3,
    )
    assert matches.image.tolist() == [[0, 0, 2, 2, 2]] * 2
    assert matches.target.tolist() == [[0, 1, 2, 3, 4]] * 2
    assert matches.query.tolist() == [[1, 3, 1, 3, 5], [4, 2, 4, 2, 0]]


def test_batch_without_targets_has_no_matches():
    class_logits, mask_logits, labels, masks = make_batch([0, 0])
    matches = make_matcher(50)(
        class_logits[None], GivenMasks([mask_logits]), labels, masks, [None] * 2
    )
    assert [m.shape for m in matches] == [(1, 0)] * 3
    assert matches.query.dtype == torch.int64


def test_more_targets_than_queries():
    class_logits, mask_logits, _, _ = make_batch([1], num_queries=3)
    labels, masks = [torch.zeros(7, dtype=torch.int64)], [torch.rand(7, 8, 10)]
    matches = match(50, class_logits, mask_logits, labels, masks)
    assert sorted(matches.query[0].tolist()) == [0, 1, 2]
    assert len(set(matches.target[0].tolist())) == 3


def test_nan_in_one_image_leaves_the_others_matches():
    class_logits, mask_logits, labels, masks = make_batch([2, 2])
    mask_logits[0] = math.nan
    matches = make_matcher(200)(
        class_logits[None], GivenMasks([mask_logits]), labels, masks, [None] * 2
    )
    assert matches.query[0, 2:].tolist() == [1, 3]
