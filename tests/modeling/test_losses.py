import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mask2former.modeling.criterion.losses import class_loss, dice_loss, focal_loss, mask_loss


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def points():
    torch.manual_seed(0)
    return torch.randn(3, 7, dtype=torch.float64) * 3, torch.rand(3, 7, dtype=torch.float64)


def test_mask_loss():
    logits, targets = points()
    total = 0.0
    for x, t in zip(logits.tolist(), targets.tolist()):
        terms = [
            -(b * math.log(sigmoid(a)) + (1 - b) * math.log(1 - sigmoid(a))) for a, b in zip(x, t)
        ]
        total += sum(terms) / len(terms)
    np.testing.assert_allclose(mask_loss(logits, targets, 4.0).item(), total / 4)


def test_focal_loss():
    logits, targets = points()
    targets = targets.round()
    total = 0.0
    for x, t in zip(logits.tolist(), targets.tolist()):
        terms = [
            -0.25 * (1 - sigmoid(a)) ** 2 * math.log(sigmoid(a))
            if b
            else -0.75 * sigmoid(a) ** 2 * math.log(1 - sigmoid(a))
            for a, b in zip(x, t)
        ]
        total += sum(terms) / len(terms)
    np.testing.assert_allclose(focal_loss(logits, targets, 4.0).item(), total / 4)


def test_dice_loss():
    logits, targets = points()
    total = 0.0
    for x, t in zip(logits.tolist(), targets.tolist()):
        p = [sigmoid(a) for a in x]
        overlap = sum(a * b for a, b in zip(p, t))
        total += 1 - (2 * overlap + 1) / (sum(p) + sum(t) + 1)
    np.testing.assert_allclose(dice_loss(logits, targets, 4.0).item(), total / 4)


def test_dice_loss_of_an_empty_target_is_finite():
    logits = torch.full((1, 5), -100.0, requires_grad=True)
    loss = dice_loss(logits, torch.zeros(1, 5), 1.0)
    loss.backward()
    assert loss.item() == 0 and logits.grad.isfinite().all()


def test_class_loss_with_torchs_normalizer_is_torchs_mean_of_each_prediction():
    torch.manual_seed(0)
    logits, targets = torch.randn(3, 2, 6, 4), torch.randint(0, 4, (3, 2, 6))
    weight = torch.tensor([1.0, 1.0, 1.0, 0.1])
    expected = [F.cross_entropy(x.transpose(1, 2), t, weight) for x, t in zip(logits, targets)]
    result = class_loss(logits, targets, weight, weight[targets].sum((1, 2)))
    torch.testing.assert_close(result, torch.stack(expected))


@pytest.mark.parametrize("loss", [mask_loss, focal_loss, dice_loss])
def test_losses_of_several_predictions_are_those_of_each(loss):
    torch.manual_seed(0)
    logits, targets = torch.randn(4, 3, 7), (torch.rand(4, 3, 7) < 0.5).float()
    expected = [loss(x, t, 4.0) for x, t in zip(logits, targets)]
    torch.testing.assert_close(loss(logits, targets, 4.0), torch.stack(expected))


def test_losses_of_every_pixel_take_masks_as_they_are():
    logits, targets = points()
    targets = targets > 0.5
    for loss in (focal_loss, dice_loss):
        assert torch.equal(loss(logits, targets, 4.0), loss(logits, targets.double(), 4.0))
