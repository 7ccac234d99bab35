"""detectron2.modeling.DatasetMapperTTA: the views of an image, and how they came about."""

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data.transforms import HFlipTransform, ResizeTransform, TransformList
from detectron2.modeling import DatasetMapperTTA


def make_input(height=20, width=30, **more):
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.integers(0, 256, (3, height, width), dtype=np.uint8))
    return {"image": image, "height": height, "width": width, **more}


def test_config_and_arguments():
    cfg = get_cfg()
    cfg.TEST.AUG.MIN_SIZES, cfg.TEST.AUG.MAX_SIZE, cfg.TEST.AUG.FLIP = (10, 15), 40, False
    mapper = DatasetMapperTTA(cfg)
    assert (tuple(mapper.min_sizes), mapper.max_size, mapper.flip) == ((10, 15), 40, False)
    assert DatasetMapperTTA(min_sizes=[1], max_size=2, flip=True).flip is True


@pytest.mark.parametrize("flip", [False, True])
def test_a_view_for_each_size_then_its_mirror_image(flip):
    views = DatasetMapperTTA([10, 40, 100], 90, flip)(make_input())
    sizes = [(10, 15), (40, 60), (60, 90)]  # the last one is bounded by its longer edge
    expected = [size for size in sizes for _ in range(1 + flip)]
    assert [tuple(view["image"].shape[1:]) for view in views] == expected
    assert all(view["image"].dtype == torch.uint8 for view in views)
    if flip:
        for plain, mirrored in zip(views[::2], views[1::2]):
            assert torch.equal(mirrored["image"], plain["image"].flip(2))


def test_views_are_resized_as_detectron2_resizes():
    sample = make_input()
    (view,) = DatasetMapperTTA([10], 90, False)(sample)
    pixels = sample["image"].permute(1, 2, 0).numpy()
    expected = ResizeTransform(20, 30, 10, 15).apply_image(pixels)
    assert np.array_equal(view["image"].permute(1, 2, 0).numpy(), expected)


def test_transforms_lead_from_the_original_to_the_view():
    views = DatasetMapperTTA([10], 90, True)({**make_input(), "height": 40, "width": 90})
    corners = np.array([[0.0, 0.0], [90.0, 40.0], [30.0, 10.0]])  # x, y
    expected = [[0, 0], [15, 10], [5, 2.5]], [[15, 0], [0, 10], [10, 2.5]]
    for view, points in zip(views, expected):
        assert isinstance(view["transforms"], TransformList)
        np.testing.assert_allclose(view["transforms"].apply_coords(corners.copy()), points)
    is_mirrored = [
        any(isinstance(t, HFlipTransform) for t in view["transforms"].transforms) for view in views
    ]
    assert is_mirrored == [False, True]


def test_all_else_is_copied():
    sample = make_input(height=20, file_name="a.png", marks=[1])
    image = sample["image"].clone()
    one, other = DatasetMapperTTA([20], 90, True)(sample)
    one["image"].zero_()
    one["marks"].append(2)
    assert sample["marks"] == other["marks"] == [1] and other["file_name"] == "a.png"
    assert (other["height"], other["width"]) == (20, 30)
    assert torch.equal(sample["image"], image) and torch.equal(other["image"], image.flip(2))
    assert "transforms" not in sample
