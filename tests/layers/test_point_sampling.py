import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mask2former.layers import chunks
from mask2former.layers.point_sampling import (
    point_sample,
    random_points,
    sample_targets,
    uncertain_points,
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


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("num_channels", [1, 7, 19, 40])
def test_point_sample_agrees_with_grid_sample(num_channels, layout):
    """Values and gradients, whatever the number of channels is divisible by."""
    torch.manual_seed(0)
    maps = torch.randn(2, num_channels, 5, 7).to(memory_format=layout).requires_grad_()
    points = torch.rand(2, 11, 2) * 1.4 - 0.2
    expected = F.grid_sample(maps, 2 * points[:, :, None] - 1, align_corners=False)[..., 0]
    result = point_sample(maps, points)
    assert torch.equal(result, expected)
    weight = torch.randn_like(result)
    (gradient,) = torch.autograd.grad((result * weight).sum(), maps)
    (expected,) = torch.autograd.grad((expected * weight).sum(), maps)
    torch.testing.assert_close(gradient, expected)


def test_point_sample_gradient():
    torch.manual_seed(0)
    maps = torch.randn(2, 3, 4, 3, dtype=torch.float64, requires_grad=True)
    points = torch.rand(2, 6, 2, dtype=torch.float64) * 1.4 - 0.2
    torch.autograd.gradcheck(lambda m: point_sample(m, points), maps)


def test_point_sample_keeps_no_maps_for_its_gradient():
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.shape) or x, lambda x: x):
        maps = torch.randn(3, 1, 50, 60, requires_grad=True)
        point_sample(maps, torch.rand(3, 4, 2))
    assert kept == [(3, 4, 2)]


def test_half_precision_maps_are_sampled_in_the_type_of_the_points():
    torch.manual_seed(0)
    maps, points = torch.randn(1, 2, 4, 3).bfloat16().requires_grad_(), torch.rand(1, 6, 2)
    result = point_sample(maps, points)
    assert torch.equal(result, point_sample(maps.detach().float(), points))
    result.sum().backward()
    assert maps.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32])
@pytest.mark.parametrize("chunk_bytes", [1, 2**20])
def test_targets_are_sampled_as_numbers(dtype, chunk_bytes, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_BYTES", chunk_bytes)
    torch.manual_seed(0)
    masks, points = (torch.rand(5, 6, 9) < 0.5).to(dtype), torch.rand(5, 11, 2) * 1.4 - 0.2
    expected = F.grid_sample(
        masks[:, None].float(), 2 * points[:, :, None] - 1, align_corners=False
    )
    assert torch.equal(sample_targets(masks, points), expected[:, 0, :, 0])
    assert sample_targets(masks[:0], points[:0]).shape == (0, 11)


def test_chunks_cover_everything_once_and_in_order(monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 100)
    for num_items, bytes_each, sizes in (
        (7, 30, [3, 3, 1]),
        (2, 1000, [1, 1]),
        (5, 0, [5]),
        (0, 3, []),
    ):
        pieces = [range(num_items)[some] for some in chunks.chunks(num_items, bytes_each)]
        assert [len(piece) for piece in pieces] == sizes
        assert [i for piece in pieces for i in piece] == list(range(num_items))


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


def test_uncertain_points_are_the_least_decided_candidates():
    torch.manual_seed(0)
    mask_logits, candidates = torch.randn(3, 6, 8), torch.rand(3, 20, 2)
    points = uncertain_points(mask_logits, candidates, 6)
    assert points.shape == (3, 6, 2)
    for n in range(3):
        image = mask_logits[n].double().numpy()
        distances = [abs(bilinear(image, *p)) for p in candidates[n].tolist()]
        best = candidates[n][np.argsort(distances)[:6]]
        assert {tuple(p) for p in points[n].tolist()} == {tuple(p) for p in best.tolist()}
