import math

import numpy as np
import pytest
import torch

from mask2former.layers.point_sampling import (
    point_sample,
    random_points,
    sample_uncertain_points,
)


def bilinear(image, x, y):
    """Value of `image` (H,W) at (x, y) in [0, 1], pixel by pixel; zero beyond the border."""
    height, width = image.shape
    column, row = x * width - 0.5, y * height - 0.5
    value = 0.0
    for r in (math.floor(row), math.floor(row) + 1):
        for c in (math.floor(column), math.floor(column) + 1):
            if 0 <= r < height and 0 <= c < width:
                value += (1 - abs(row - r)) * (1 - abs(column - c)) * image[r, c]
    return value


def test_point_sample_agrees_with_loops():
    torch.manual_seed(0)
    maps = torch.randn(2, 3, 5, 7, dtype=torch.float64)
    points = torch.rand(2, 11, 2, dtype=torch.float64) * 1.4 - 0.2  # some beyond the border
    expected = np.zeros((2, 3, 11))
    for n in range(2):
        for c in range(3):
            for p in range(11):
                expected[n, c, p] = bilinear(maps[n, c].numpy(), *points[n, p].tolist())
    np.testing.assert_allclose(point_sample(maps, points).numpy(), expected, atol=1e-12)


def test_point_sample_gradient():
    torch.manual_seed(0)
    maps = torch.randn(1, 2, 4, 3, dtype=torch.float64, requires_grad=True)
    points = torch.rand(1, 6, 2, dtype=torch.float64)
    torch.autograd.gradcheck(lambda m: point_sample(m, points), maps)


def test_random_points_of_an_image_do_not_depend_on_its_companions():
    def generator(seed):
        return torch.Generator().manual_seed(seed)

    device = torch.device("cpu")
    both = random_points([2, 3], 5, [generator(7), generator(8)], device)
    first = random_points([2], 5, [generator(7)], device)
    second = random_points([3], 5, [generator(8)], device)
    assert torch.equal(both, torch.cat((first, second)))
    assert both.shape == (5, 5, 2)
    assert both.min() >= 0 and both.max() < 1


def test_random_points_without_generators_are_torchs_own():
    torch.manual_seed(3)
    expected = torch.rand(2, 4, 2)
    torch.manual_seed(3)
    assert torch.equal(random_points([2], 4, [None], torch.device("cpu")), expected)


@pytest.mark.parametrize("importance", [0.0, 0.75, 1.0])
def test_uncertain_points_are_the_least_decided_candidates(importance):
    torch.manual_seed(0)
    mask_logits = torch.randn(3, 6, 8)
    draws = []

    def draw(num_points):
        draws.append(torch.rand(3, num_points, 2))
        return draws[-1]

    points = sample_uncertain_points(mask_logits, 8, 2.5, importance, draw)

    assert points.shape == (3, 8, 2)
    candidates, rest = draws
    assert candidates.shape[1] == 20
    num_uncertain = round(8 * importance)
    for n in range(3):
        image = mask_logits[n].double().numpy()
        distances = [abs(bilinear(image, *p)) for p in candidates[n].tolist()]
        best = candidates[n][np.argsort(distances)[:num_uncertain]]
        assert {tuple(p) for p in points[n, :num_uncertain].tolist()} == {
            tuple(p) for p in best.tolist()
        }
    assert torch.equal(points[:, num_uncertain:], rest)
