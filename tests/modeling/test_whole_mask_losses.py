"""MaskFormer's costs and losses against loops over pixels."""

import itertools
import math

import numpy as np
import pytest
import torch
from tiny_model import tiny_config

from mask2former.layers import chunks
from mask2former.modeling.criterion.build import build_criterion
from mask2former.modeling.criterion.criterion import SetCriterion
from mask2former.modeling.criterion.losses import dice_loss, focal_loss
from mask2former.modeling.criterion.mask_comparison import AtPoints, WholeMasks
from mask2former.modeling.criterion.predicted_masks import GivenMasks

NUM_CLASSES, QUERIES, SIZE, TARGET_SIZE = 3, 4, (3, 4), (6, 8)


def no_points(num):
    raise AssertionError("whole masks are compared without points")


def make_masks(num_logits, num_targets, seed=0):
    torch.manual_seed(seed)
    logits = 3 * torch.randn(num_logits, *SIZE, dtype=torch.float64)
    return logits, (torch.rand(num_targets, *TARGET_SIZE) < 0.4).double()


def focal(x, t):
    p = 1 / (1 + math.exp(-x))
    return -0.25 * (1 - p) ** 2 * math.log(p) if t else -0.75 * p**2 * math.log(1 - p)


def mean_focal(logits, target):
    terms = [focal(x, t) for x, t in zip(np.ravel(logits), np.ravel(target))]
    return sum(terms) / len(terms)


def dice(logits, target):
    p, t = 1 / (1 + np.exp(-np.ravel(logits))), np.ravel(target)
    return 1 - (2 * sum(p * t) + 1) / (sum(p) + sum(t) + 1)


def enlarge(logits):
    """Bilinear to twice the size, pixel by pixel; beyond the border the border goes on."""
    height, width = logits.shape
    result = np.empty((2 * height, 2 * width))
    for row, column in itertools.product(range(2 * height), range(2 * width)):
        y, x = (row + 0.5) / 2 - 0.5, (column + 0.5) / 2 - 0.5
        total = 0.0
        top, left = math.floor(y), math.floor(x)
        for i, j in itertools.product((top, top + 1), (left, left + 1)):
            weight = (1 - abs(y - i)) * (1 - abs(x - j))
            total += weight * logits[min(max(i, 0), height - 1), min(max(j, 0), width - 1)]
        result[row, column] = total
    return result


def loop_costs(logits, targets):
    """Of every pair, at the predictions' size: every second pixel of a target."""
    small = np.asarray(targets)[:, ::2, ::2]
    return np.array(
        [[[f(x, t) for t in small] for x in np.asarray(logits)] for f in (mean_focal, dice)]
    )


def whole_mask_losses(logits, targets, matched_targets, num_masks):
    """Shapes: (D,M,H,W), (N,H',W'), (D,M) -> (D,), (D,)"""
    return WholeMasks().losses(
        logits.__getitem__, targets, torch.as_tensor(matched_targets), num_masks, no_points
    )


@pytest.fixture(params=[2**25, 1], ids=["at once", "one by one"])
def chunk_bytes(request, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_BYTES", request.param)


@pytest.mark.parametrize("dtype", [torch.bool, torch.float64])
def test_costs_agree_with_loops(chunk_bytes, dtype):
    logits, targets = make_masks(2 * QUERIES, 3)
    logits = logits.view(2, QUERIES, *SIZE)
    masks = GivenMasks(logits[:, None])
    costs = WholeMasks().costs(masks, 0, targets.to(dtype), logits.new_zeros(2, 0, 2))
    expected = [loop_costs(x, targets) for x in logits]
    np.testing.assert_allclose(torch.stack(costs, 1), expected, rtol=1e-10)


@pytest.mark.parametrize("dtype", [torch.bool, torch.float64])
def test_losses_agree_with_loops(chunk_bytes, dtype):
    logits, targets = make_masks(6, 4)
    logits = logits.view(2, 3, *SIZE)
    matched_targets = [[0, 1, 3], [1, 2, 3]]
    losses = whole_mask_losses(logits, targets.to(dtype), matched_targets, torch.tensor(5.0))
    expected = [
        [sum(f(enlarge(x), targets[t].numpy()) for x, t in zip(*pairs)) / 5]
        for f in (mean_focal, dice)
        for pairs in zip(logits.numpy(), matched_targets)
    ]
    np.testing.assert_allclose(torch.cat(losses)[:, None], expected, rtol=1e-10)


def test_gradients_agree_with_differences():
    logits, targets = make_masks(2, 2)
    logits.requires_grad_()
    num_masks = torch.tensor(3.0, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x: whole_mask_losses(x[None], targets.bool(), [[0, 1]], num_masks), logits
    )
    flat = targets.flatten(1)
    wide = torch.randn(2, 48, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: focal_loss(x, flat, num_masks), wide)
    assert torch.autograd.gradcheck(lambda x: dice_loss(x, flat, num_masks), wide)


@pytest.mark.parametrize("logit", [100.0, -100.0])
def test_extreme_logits_have_finite_losses_and_gradients(logit):
    logits = torch.full((2, *SIZE), logit, requires_grad=True)
    targets = torch.stack((torch.zeros(TARGET_SIZE), torch.ones(TARGET_SIZE)))
    losses = whole_mask_losses(logits[None], targets, [[0, 1]], torch.tensor(1.0))
    sum(losses).backward()
    wrong = 0.75 * 100 if logit > 0 else 0.25 * 100  # of the empty target, or of the full one
    assert losses[0].item() == pytest.approx(wrong) and logits.grad.isfinite().all()


def make_criterion(**changes):
    arguments = {
        "class_weight": 1.0,
        "mask_weight": 20.0,
        "dice_weight": 1.5,
        "no_object_weight": 0.1,
        "deep_supervision": True,
        "comparison": WholeMasks(),
    }
    return SetCriterion(NUM_CLASSES, **(arguments | changes))


def make_batch(num_targets, num_layers=2):
    torch.manual_seed(3)
    layers = [
        {
            "pred_logits": torch.randn(len(num_targets), QUERIES, NUM_CLASSES + 1),
            "pred_masks": 3 * torch.randn(len(num_targets), QUERIES, *SIZE),
        }
        for _ in range(num_layers)
    ]
    for layer in layers:
        for tensor in layer.values():
            tensor.requires_grad_()
    targets = [
        {
            "labels": torch.randint(0, NUM_CLASSES, (n,)),
            "masks": torch.rand(n, *TARGET_SIZE) < 0.4,
        }
        for n in num_targets
    ]
    return {**layers[-1], "aux_outputs": layers[:-1]}, targets


def cheapest_pairs(costs):
    """Query and target of each pair, by trying every assignment."""
    num_queries, num_targets = costs.shape
    num_pairs = min(num_queries, num_targets)
    candidates = [
        list(zip(queries, chosen))
        for queries in itertools.permutations(range(num_queries), num_pairs)
        for chosen in itertools.combinations(range(num_targets), num_pairs)
    ]
    return min(candidates, key=lambda pairs: sum(costs[pair] for pair in pairs))


def loop_criterion(layer, targets):
    """All that the criterion does for one layer: loss_ce, loss_mask, loss_dice."""
    num_masks = max(1, sum(len(t["labels"]) for t in targets))
    weights, terms, mask_loss, dice_loss = [], [], 0.0, 0.0
    for class_logits, mask_logits, target in zip(
        layer["pred_logits"].detach(), layer["pred_masks"].detach().numpy(), targets
    ):
        labels, masks = target["labels"].tolist(), target["masks"].double().numpy()
        probabilities = class_logits.softmax(-1).numpy()
        costs = np.zeros((QUERIES, 0))
        if labels:
            focal_costs, dice_costs = loop_costs(mask_logits, masks)
            costs = 20 * focal_costs + 1.5 * dice_costs - probabilities[:, labels]
        pairs = cheapest_pairs(costs)
        classes = [NUM_CLASSES] * QUERIES
        for q, t in pairs:
            classes[q] = labels[t]
            large = enlarge(mask_logits[q])
            mask_loss += mean_focal(large, masks[t]) / num_masks
            dice_loss += dice(large, masks[t]) / num_masks
        for q, c in enumerate(classes):
            weights.append(0.1 if c == NUM_CLASSES else 1.0)
            terms.append(-weights[-1] * math.log(probabilities[q, c]))
    return [sum(terms) / sum(weights), 20 * mask_loss, 1.5 * dice_loss]


@pytest.mark.parametrize("num_targets", [[2, 3], [0, 2], [QUERIES + 2, 1]])
def test_criterion_agrees_with_loops(num_targets):
    """Images without targets and with more targets than queries among them."""
    outputs, targets = make_batch(num_targets)
    losses = make_criterion()(outputs, targets)
    assert list(losses) == [
        f"loss_{kind}{layer}" for layer in ("", "_0") for kind in ("ce", "mask", "dice")
    ]
    for suffix, layer in (("", outputs), ("_0", outputs["aux_outputs"][0])):
        result = [losses[f"loss_{kind}{suffix}"].item() for kind in ("ce", "mask", "dice")]
        np.testing.assert_allclose(result, loop_criterion(layer, targets), rtol=1e-4)


def test_batch_without_targets_has_gradients_for_all():
    outputs, targets = make_batch([0, 0])
    losses = make_criterion()(outputs, targets)
    assert losses["loss_mask"] == losses["loss_dice_0"] == 0
    sum(losses.values()).backward()
    for layer in (outputs, *outputs["aux_outputs"]):
        assert all(layer[key].grad.isfinite().all() for key in ("pred_logits", "pred_masks"))


def test_nothing_is_random():
    outputs, targets = make_batch([2, 3])
    state = torch.get_rng_state()
    first, second = (make_criterion()(outputs, targets) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(torch.get_rng_state(), state)


def test_losses_are_single_precision_under_autocast():
    outputs, targets = make_batch([2, 3], num_layers=1)
    half = {k: v.detach().bfloat16() for k, v in outputs.items() if k != "aux_outputs"}
    expected = make_criterion()(
        {**{k: v.float() for k, v in half.items()}, "aux_outputs": []}, targets
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = make_criterion()({**half, "aux_outputs": []}, targets)
    for name, loss in losses.items():
        assert torch.equal(loss, expected[name]) and loss.dtype == torch.float32


def test_the_key_chooses():
    def chosen(*overrides):
        return build_criterion(tiny_config(*overrides), NUM_CLASSES).matcher.comparison

    assert chosen("MODEL.MASK_FORMER.MASK_LOSS", "whole_masks") == WholeMasks()
    assert chosen() == AtPoints(128, 3.0, 0.75)
    with pytest.raises(ValueError, match="MASK_LOSS='dice'; set it to points or whole_masks"):
        chosen("MODEL.MASK_FORMER.MASK_LOSS", "dice")
