"""detectron2.projects: DeepLab's config keys, PointRend's colours and point sampling."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.projects.deeplab import add_deeplab_config
from detectron2.projects.deeplab.resnet import DeepLabStem
from detectron2.projects.point_rend import ColorAugSSDTransform
from detectron2.projects.point_rend.point_features import (
    generate_regular_grid_point_coords,
    get_uncertain_point_coords_with_randomness,
    point_sample,
)

GOLDEN = Path(__file__).parents[1] / "goldens" / "d2_color_augmentation.json"


def test_deeplab_config():
    cfg = get_cfg()
    add_deeplab_config(cfg)
    assert cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA == 1.0
    assert (cfg.SOLVER.POLY_LR_POWER, cfg.SOLVER.POLY_LR_CONSTANT_ENDING) == (0.9, 0.0)
    resnet = cfg.MODEL.RESNETS
    assert (resnet.STEM_TYPE, resnet.RES4_DILATION) == ("deeplab", 1)
    assert resnet.RES5_MULTI_GRID == [1, 2, 4]
    head = cfg.MODEL.SEM_SEG_HEAD
    assert (head.LOSS_TYPE, head.USE_DEPTHWISE_SEPARABLE_CONV) == ("hard_pixel_mining", False)
    assert (head.PROJECT_FEATURES, head.PROJECT_CHANNELS) == (["res2"], [48])
    assert (head.ASPP_CHANNELS, head.ASPP_DILATIONS, head.ASPP_DROPOUT) == (256, [6, 12, 18], 0.1)


def test_deeplab_stem():
    stem = DeepLabStem(3, 32)
    assert (stem.in_channels, stem.out_channels, stem.stride) == (3, 32, 4)
    assert stem(torch.zeros(1, 3, 32, 48)).shape == (1, 32, 8, 12)


@pytest.fixture
def image():
    return np.random.RandomState(0).randint(0, 256, (17, 23, 3), dtype=np.uint8)


@pytest.mark.parametrize("img_format", ["BGR", "RGB"])
def test_colors_are_a_function_of_the_seed(image, img_format):
    """Against the real detectron2; for each seed four pixels and the next number of `random`."""
    golden = json.loads(GOLDEN.read_text())[img_format]
    transform = ColorAugSSDTransform(img_format)
    before = image.copy()
    for seed, (pixels, next_number) in enumerate(golden):
        random.seed(seed)
        augmented = transform.apply_image(image)
        assert random.random() == pytest.approx(next_number, abs=1e-6)
        assert augmented.shape == image.shape and augmented.dtype == np.uint8
        # builds of OpenCV may round differently
        np.testing.assert_allclose(augmented[::5, 7, :].astype(int), pixels, atol=2)
    np.testing.assert_array_equal(image, before)


def test_colors_leave_geometry_alone(image):
    transform = ColorAugSSDTransform("RGB")
    coords, labels = np.array([[1.0, 2.0]]), image[:, :, 0]
    np.testing.assert_array_equal(transform.apply_coords(coords), coords)
    np.testing.assert_array_equal(transform.apply_segmentation(labels), labels)


def test_color_ranges(image, monkeypatch):
    monkeypatch.setattr(random, "randrange", lambda stop: 1)  # every distortion happens
    still = ColorAugSSDTransform("BGR", 0, 1, 1, 1, 1, 0)
    assert np.abs(still.apply_image(image).astype(int) - image).max() <= 6  # two trips to HSV
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    bright = ColorAugSSDTransform("BGR", brightness_delta=40).brightness(image)
    np.testing.assert_array_equal(bright, np.minimum(image.astype(int) + 40, 255))
    flat = ColorAugSSDTransform("BGR", contrast_high=0.5).contrast(image)
    np.testing.assert_array_equal(flat, image // 2)
    grey = ColorAugSSDTransform("BGR", saturation_high=0.0).saturation(image)
    assert (np.ptp(grey, axis=2) == 0).all()


def test_unknown_image_format():
    with pytest.raises((AssertionError, ValueError)):
        ColorAugSSDTransform("YUV")


def bilinear(grid: np.ndarray, x: float, y: float) -> float:
    """The value at (x, y) in [0, 1] where pixels are cells and the outside is 0."""
    height, width = grid.shape
    column, row = x * width - 0.5, y * height - 0.5
    value = 0.0
    for i in (int(np.floor(row)), int(np.floor(row)) + 1):
        for j in (int(np.floor(column)), int(np.floor(column)) + 1):
            if 0 <= i < height and 0 <= j < width:
                value += grid[i, j] * (1 - abs(row - i)) * (1 - abs(column - j))
    return value


def test_point_sample_interpolates_between_cells():
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 3, 4, 5, generator=generator)
    points = torch.rand(2, 6, 2, generator=generator)
    values = point_sample(maps, points, align_corners=False)
    assert values.shape == (2, 3, 6)
    want = [
        [[bilinear(grid, x, y) for x, y in points[b].tolist()] for grid in maps[b].numpy()]
        for b in range(2)
    ]
    np.testing.assert_allclose(values.numpy(), want, rtol=1e-4, atol=1e-5)
    on_grid = point_sample(maps, points.view(2, 3, 2, 2), align_corners=False)
    torch.testing.assert_close(on_grid.flatten(2), values)
    nearest = point_sample(maps, points, mode="nearest", align_corners=False)
    assert set(nearest.flatten().tolist()) <= set(maps.flatten().tolist())


def test_regular_grid():
    points = generate_regular_grid_point_coords(2, 2, "cpu")
    want = [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]
    assert points.tolist() == [want, want]


def boundary_logits() -> torch.Tensor:
    """Logits (2,1,16,16) that change their sign at x = 1/2."""
    ramp = torch.linspace(-1, 1, 16)
    return ramp.expand(2, 1, 16, 16).clone()


@pytest.mark.parametrize(("ratio", "num_uncertain"), [(0.0, 0), (0.75, 30), (1.0, 40)])
def test_uncertain_points_lie_at_the_boundary(ratio, num_uncertain):
    torch.manual_seed(0)
    seen = []

    def uncertainty(logits):
        seen.append(tuple(logits.shape))
        return -logits.abs()

    points = get_uncertain_point_coords_with_randomness(
        boundary_logits(), uncertainty, 40, 10.0, ratio
    )
    assert points.shape == (2, 40, 2)
    assert points.min() >= 0 and points.max() <= 1
    assert seen == [(2, 1, 400)]
    distance = (points[:, :, 0] - 0.5).abs()
    # of 400 uniform candidates the best 30 or 40 lie in a strip of about a tenth of the width
    assert (distance[:, :num_uncertain] < 0.1).all()
    if num_uncertain < 40:
        assert distance[:, num_uncertain:].max() > 0.25


def test_uncertain_points_reproduce_the_real_sequence():
    torch.manual_seed(1)
    points = get_uncertain_point_coords_with_randomness(
        boundary_logits(), lambda logits: -logits.abs(), 4, 3.0, 0.75
    )
    want = [
        [[0.463546, 0.454986], [0.569508, 0.438778], [0.572472, 0.498003], [0.355621, 0.445183]],
        [[0.639682, 0.974278], [0.339776, 0.523941], [0.71398, 0.267644], [0.019306, 0.261609]],
    ]
    torch.testing.assert_close(points, torch.tensor(want), atol=1e-6, rtol=0)
    nobody = get_uncertain_point_coords_with_randomness(
        boundary_logits()[:0], lambda logits: -logits.abs(), 4, 3.0, 0.75
    )
    assert nobody.shape == (0, 4, 2)


@pytest.mark.parametrize(("oversample", "importance"), [(0.5, 0.5), (3.0, 1.5), (3.0, -0.1)])
def test_ratios_out_of_range(oversample, importance):
    with pytest.raises(AssertionError):
        get_uncertain_point_coords_with_randomness(
            boundary_logits(), lambda logits: -logits.abs(), 4, oversample, importance
        )
