"""The photometric distortion by tables against detectron2's, bit for bit."""

import random

import numpy as np
import pytest
from detectron2.projects.point_rend import ColorAugSSDTransform
from hypothesis import given, settings
from hypothesis import strategies as st

from mask2former.data.colour import PhotometricDistortion

FORMATS = ("RGB", "BGR")


def _both(image: np.ndarray, image_format: str, seed: int) -> np.ndarray:
    """What ours makes of it; detectron2's must make the same, of as many random numbers."""
    results = []
    for transform in (PhotometricDistortion(image_format), ColorAugSSDTransform(image_format)):
        random.seed(seed)
        before = image.copy()
        results.append((transform.apply_image(image), random.getstate()))
        np.testing.assert_array_equal(image, before)
    (ours, our_state), (theirs, their_state) = results
    np.testing.assert_array_equal(ours, theirs)
    assert ours.dtype == np.uint8 and our_state == their_state
    return ours


@pytest.mark.parametrize("image_format", FORMATS)
def test_bits_and_random_numbers_are_those_of_detectron2(image_format):
    """Over 200 seeds, in which everything happens that can, in every order."""
    image = np.random.RandomState(0).randint(0, 256, (37, 41, 3)).astype(np.uint8)
    outcomes = [_both(image, image_format, seed) for seed in range(200)]
    unchanged = [np.array_equal(outcome, image) for outcome in outcomes]
    assert 3 <= sum(unchanged) <= 25  # a sixteenth


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**32), st.sampled_from(FORMATS))
def test_pictures_of_every_size(height, width, seed, image_format):
    image = np.random.RandomState(seed % 2**31).randint(0, 256, (height, width, 3))
    _both(image.astype(np.uint8), image_format, seed)


def test_every_colour_of_a_coarse_cube():
    levels = np.array([0, 1, 2, 50, 100, 127, 128, 200, 254, 255], np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(20, 50, 3)
    for seed in range(40):
        _both(cube, "RGB", seed)


def test_a_flipped_view():
    image = np.random.RandomState(0).randint(0, 256, (9, 12, 3)).astype(np.uint8)
    for seed in range(20):
        random.seed(seed)
        expected = PhotometricDistortion("RGB").apply_image(image[:, ::-1].copy())
        random.seed(seed)
        found = PhotometricDistortion("RGB").apply_image(image[:, ::-1])
        np.testing.assert_array_equal(found, expected)


def test_labels_and_corners_stay():
    transform = PhotometricDistortion("BGR")
    labels, corners = np.eye(3, dtype=np.uint8), np.array([[1.0, 2.0]])
    assert transform.apply_segmentation(labels) is labels
    assert transform.apply_coords(corners) is corners


@pytest.mark.parametrize("image_format", ["L", "YUV-BT.601"])
def test_a_format_without_colours(image_format):
    with pytest.raises(ValueError, match=f"INPUT.FORMAT='{image_format}'.*set it to RGB or BGR"):
        PhotometricDistortion(image_format)
