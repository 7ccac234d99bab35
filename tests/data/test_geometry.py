"""What is drawn first and worked out later, against detectron2's transforms one after the other."""

import random
from collections.abc import Sequence

import numpy as np
import pytest
from detectron2.data import transforms as T
from detectron2.projects.point_rend import ColorAugSSDTransform
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from mask2former.data.augmentation import CropByClassArea, OneOf, ResizeScale
from mask2former.data.colour import PhotometricDistortion
from mask2former.data.geometry import AppliedGeometry, Geometry, draw
from mask2former.data.resizing import Window, nearest, resize_part

GREY = 128
NUM_CLASSES = 4


def _picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, (height, width, 3)).astype(np.uint8)


def _classes(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Blocks of classes, most of them of one class, and 255."""
    rng = np.random.RandomState(seed)
    values = np.array([0, 0, 0, 0, 0, 1, 2, 3, 255], np.uint8)
    coarse = values[rng.randint(0, len(values), (height // 9 + 1, width // 9 + 1))]
    return coarse.repeat(9, 0).repeat(9, 1)[:height, :width]


def _seed(seed: int) -> None:
    np.random.seed(seed)
    random.seed(seed)


def _states() -> tuple:
    name, keys, *rest = np.random.get_state()
    return name, keys.tolist(), *rest, random.getstate()


def _agrees(
    ours: Sequence[T.Augmentation],
    theirs: Sequence[T.Augmentation],
    size: tuple[int, int],
    seed: int,
) -> Geometry:
    """Draw ours, and do theirs one after the other; all that comes out must be the same."""
    image, label = _picture(*size, seed), _classes(*size, seed)
    _seed(seed)
    oracle = T.AugInput(image, sem_seg=label.astype(np.float64))
    transforms = oracle.apply_augmentations(theirs)
    expected = _states()
    _seed(seed)
    geometry = draw(ours, Image.fromarray(image), label)
    (height, width), (full_height, full_width) = geometry.size, geometry.frame
    content = geometry.image(Image.fromarray(image))
    assert _states() == expected  # after the colours, which are drawn when they are made
    assert oracle.image.shape == (full_height, full_width, 3)
    np.testing.assert_array_equal(content, oracle.image[:height, :width])
    padding = np.ones(geometry.frame, bool)
    padding[:height, :width] = False
    assert (oracle.image[padding] == GREY).all()

    moved = geometry.labels(label, "torch")
    assert moved.dtype == np.uint8
    np.testing.assert_array_equal(moved, oracle.sem_seg[:height, :width])
    moved = geometry.labels(image, "pillow")  # as if its colours were ids
    np.testing.assert_array_equal(moved, transforms.apply_segmentation(image)[:height, :width])
    ids = label.astype(np.int32) * 70000
    parts = transforms.apply_segmentation(label)[:height, :width].astype(np.int32)
    np.testing.assert_array_equal(geometry.labels(ids, "pillow"), parts * 70000)
    corners = np.array([[0.0, 0.0], [3.25, 7.5], [size[1], size[0]], [-4.0, 900.0]])
    before = corners.copy()
    np.testing.assert_array_equal(geometry.coords(corners), transforms.apply_coords(corners.copy()))
    np.testing.assert_array_equal(corners, before)
    return geometry


def _standard(crop: list, flip: dict) -> tuple[list, list]:
    """The recipes mask_former_*, as ours and as detectron2's."""
    resize = T.ResizeShortestEdge((40, 60, 75, 90), 160, "choice")
    ours, theirs = [resize], [resize]
    for augmentation in crop:
        theirs.append(augmentation)
        if isinstance(augmentation, T.RandomCrop_CategoryAreaConstraint):
            limit = augmentation.single_category_max_area
            size = augmentation.crop_aug.crop_size
            augmentation = CropByClassArea("absolute", size, limit, 255)
        ours.append(augmentation)
    ours += [PhotometricDistortion("RGB"), T.RandomFlip(**flip)]
    theirs += [ColorAugSSDTransform("RGB"), T.RandomFlip(**flip)]
    return ours, theirs


def _jitter(side: int, flip: dict) -> tuple[list, list]:
    crop = T.FixedSizeCrop((side, side), pad_value=GREY, seg_pad_value=0)
    return (
        [T.RandomFlip(**flip), ResizeScale(0.1, 2.0, side, side), crop],
        [T.RandomFlip(**flip), T.ResizeScale(0.1, 2.0, side, side), crop],
    )


class _OfficialChoice(T.Augmentation):
    """As the official mapper chooses."""

    def __init__(self, first: list, second: list):
        super().__init__()
        self.first, self.second = first, second

    def __call__(self, aug_input: T.AugInput) -> T.Transform:
        chosen = self.first if np.random.rand() > 0.5 else self.second
        return aug_input.apply_augmentations(chosen)


def _detr() -> tuple[list, list]:
    resize = T.ResizeShortestEdge((48, 56, 64, 80), 133, "choice")
    crop = [
        T.ResizeShortestEdge((40, 50, 60), sample_style="choice"),
        T.RandomCrop("absolute_range", (38, 60)),
    ]
    flip = T.RandomFlip()
    parts = [flip, resize], [flip, *crop, resize]
    return [OneOf(*parts)], [_OfficialChoice(*parts)]


HORIZONTAL, VERTICAL = {"horizontal": True}, {"horizontal": False, "vertical": True}
RECIPES = {
    "semantic": _standard(
        [T.RandomCrop_CategoryAreaConstraint("absolute", (33, 57), 1.0, 255)], HORIZONTAL
    ),
    "class areas": _standard(
        [T.RandomCrop_CategoryAreaConstraint("absolute", (33, 57), 0.6, 255)], VERTICAL
    ),
    "instance": _standard([T.RandomCrop("relative_range", (0.3, 0.3))], HORIZONTAL),
    "no crop": _standard([], VERTICAL),
    "jitter": _jitter(64, HORIZONTAL),
    "jitter, vertical": _jitter(50, VERTICAL),
    "detr": _detr(),
}
SIZES = [(64, 128), (101, 53), (87, 87), (31, 190), (20, 11)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", RECIPES)
def test_pixels_labels_corners_and_draws_are_those_of_detectron2(name, size):
    for seed in range(12):
        assert type(_agrees(*RECIPES[name], size, seed)) is Geometry


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.sampled_from(sorted(RECIPES)), st.integers(10, 140), st.integers(10, 140), st.data())
def test_pictures_of_every_size(name, height, width, data):
    _agrees(*RECIPES[name], (height, width), data.draw(st.integers(0, 10**6)))


@pytest.mark.parametrize("size", [(2, 400), (400, 2), (1, 200)])
@pytest.mark.parametrize("name", ["semantic", "class areas", "no crop", "detr"])
def test_very_thin_pictures(name, size):
    for seed in range(4):
        _agrees(*RECIPES[name], size, seed)


@pytest.mark.parametrize("size", [(1, 200), (400, 2)])
def test_jitter_leaves_a_pixel_of_a_very_thin_picture(size):
    """Of which detectron2's rounding may leave nothing, in an error of Pillow's."""
    ours, theirs = RECIPES["jitter"]
    sizes = set()
    for seed in range(20):
        _seed(seed)
        geometry = draw(ours, _picture(*size))
        content = geometry.image(_picture(*size))
        assert content.shape == (*geometry.size, 3) and geometry.frame == (64, 64)
        sizes.add(min(geometry.size))
        _seed(seed)
        drawn = T.AugInput(np.zeros((*size, 3), np.float32))
        scale = [augmentation.get_transform(drawn.image) for augmentation in theirs[:2]][1]
        if min(scale.new_h, scale.new_w) > 0:
            _agrees(ours, theirs, size, seed)
    assert min(sizes) == 1


def test_the_crop_by_class_areas_decides_as_detectron2s():
    """Also where it takes several tries, or all ten in vain."""
    ours, theirs = RECIPES["class areas"]
    retried = 0
    for seed in range(40):
        geometry = _agrees(ours, theirs, (100, 160), seed)
        _seed(seed)
        np.random.choice((40, 60, 75, 90))
        height, width = ours[0].get_output_shape(100, 160, 75, 160)
        crop = next(t for t in geometry.transforms.transforms if isinstance(t, T.CropTransform))
        first = np.random.randint(height - 33 + 1), np.random.randint(width - 57 + 1)
        retried += (crop.y0, crop.x0) != first
    assert retried > 10
    for seed in range(5):
        _agrees(*_one_class(), (70, 70), seed)


def _one_class() -> tuple[list, list]:
    return (
        [CropByClassArea("absolute", (9, 9), 0.5, 255)],
        [T.RandomCrop_CategoryAreaConstraint("absolute", (9, 9), 0.5, 255)],
    )


def test_classes_may_be_given_for_what_a_crop_asks_for():
    label = _classes(100, 160)
    asked = []

    def classes(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        asked.append((len(rows), len(columns)))
        return label[rows][:, columns]

    for seed in range(5):
        _seed(seed)
        expected = draw(RECIPES["class areas"][0], _picture(100, 160), label).origins("torch")
        _seed(seed)
        found = draw(RECIPES["class areas"][0], _picture(100, 160), classes).origins("torch")
        assert all(np.array_equal(*pair) for pair in zip(expected, found))
    assert set(asked) == {(33, 57)}


def test_a_frame_of_multiples():
    geometry = draw(RECIPES["jitter"][0], _picture(64, 128))
    geometry.pad_frame(-1)
    assert geometry.frame == (64, 64)
    geometry.pad_frame(48)
    assert geometry.frame == (96, 96) and max(geometry.size) <= 64
    geometry.pad_frame(32)
    assert geometry.frame == (96, 96)


def test_without_augmentations_everything_stays():
    image = _picture(30, 40)
    geometry = draw([], image)
    assert geometry.size == geometry.frame == (30, 40)
    np.testing.assert_array_equal(geometry.image(image), image)
    assert geometry.image(image).flags.writeable


@pytest.mark.parametrize("mode", ["L", "float"])
def test_pictures_of_other_kinds(mode):
    image = _picture(50, 90)[..., :1]
    image = image if mode == "L" else image / 255.0
    augmentations = RECIPES["jitter"][0]
    for seed in range(6):
        _seed(seed)
        oracle = T.AugInput(image)
        oracle.apply_augmentations(augmentations)
        _seed(seed)
        geometry = draw(augmentations, image)
        height, width = geometry.size
        found = geometry.image(image)
        assert found.dtype == image.dtype
        np.testing.assert_array_equal(found, oracle.image[:height, :width])
    if mode == "L":
        picture = Image.fromarray(image[..., 0])
        np.testing.assert_array_equal(geometry.image(picture), found)


class _Shear(T.Transform):
    """A user's own: each row moves one pixel farther than the one above."""

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        return np.stack([np.roll(row, shift, axis=0) for shift, row in enumerate(img)])

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        return coords + [0.5, 0]


class _ByBrightness(T.Augmentation):
    """A user's own: looks at pixels."""

    def get_transform(self, image: np.ndarray) -> T.Transform:
        return T.HFlipTransform(image.shape[1]) if image.mean() > 127 else T.NoOpTransform()


class _OwnFlip(T.RandomFlip):
    """What derives from a known one may do anything."""


RESIZE = T.ResizeShortestEdge((40, 60), 160, "choice")
OWN = {
    "pixels": [RESIZE, _ByBrightness(), T.RandomFlip()],
    "blend": [RESIZE, T.RandomContrast(0.5, 1.5), T.RandomSaturation(0.5, 1.5)],
    "transform": [RESIZE, _Shear(), T.RandomCrop("absolute", (20, 30))],
    "derived": [RESIZE, _OwnFlip()],
    "black padding": [RESIZE, T.FixedSizeCrop((70, 80), pad_value=0, seg_pad_value=0)],
    "padding first": [T.FixedSizeCrop((150, 150), pad_value=GREY, seg_pad_value=9), RESIZE],
    "nested": [T.AugmentationList([RESIZE, T.RandomFlip()])],
}


@pytest.mark.parametrize("name", OWN)
def test_a_users_own_augmentations_are_applied_one_by_one(name):
    image, label = _picture(55, 81), _classes(55, 81)
    for seed in range(6):
        _seed(seed)
        oracle = T.AugInput(image, sem_seg=label.astype(np.float64))
        transforms = oracle.apply_augmentations(OWN[name])
        _seed(seed)
        geometry = draw(OWN[name], Image.fromarray(image), label)
        assert isinstance(geometry, AppliedGeometry)
        assert geometry.size == geometry.frame == oracle.image.shape[:2]
        np.testing.assert_array_equal(geometry.image(Image.fromarray(image)), oracle.image)
        np.testing.assert_array_equal(geometry.labels(label, "torch"), oracle.sem_seg)
        expected = transforms.apply_segmentation(label)
        if name == "padding first":  # of ids and masks, nothing
            expected = np.where(expected == 9, 0, expected)
        np.testing.assert_array_equal(geometry.labels(label, "pillow"), expected)
        is_class = expected < NUM_CLASSES
        wide = geometry.labels(label.astype(np.int32) * 70000, "pillow")
        np.testing.assert_array_equal(wide[is_class], expected[is_class].astype(int) * 70000)
        corners = np.array([[3.0, 5.0]])
        np.testing.assert_array_equal(
            geometry.coords(corners), transforms.apply_coords(corners.copy())
        )


@pytest.mark.parametrize("interp", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC])
@pytest.mark.parametrize("new", [(307, 614), (90, 301), (256, 512), (64, 700), (40, 90), (128, 97)])
def test_a_part_of_a_resized_picture_is_cut_out_of_it(new, interp):
    """To the bit, in noise, where every rounding shows."""
    rng = np.random.RandomState(0)
    for height, width in ((128, 256), (131, 89), (300, 100)):
        image = Image.fromarray(_picture(height, width))
        whole = np.asarray(image.resize(new[::-1], interp))
        for _ in range(4):
            size = [rng.randint(1, length + 1) for length in new]
            top, left = (rng.randint(whole - part + 1) for whole, part in zip(new, size))
            part = resize_part(image, new, Window(top, left, *size), interp)
            expected = whole[top : top + size[0], left : left + size[1]]
            np.testing.assert_array_equal(np.asarray(part), expected)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.integers(1, 700), st.integers(1, 700), st.integers(1, 90))
@example(164, 72, 56)  # ties, in which a small map goes another way than
@example(164, 72, 57)  # a large one
def test_nearest_neighbours_along_one_axis(old, new, height):
    row, size = np.arange(old)[None, :, None], (height, new)
    resize = T.ResizeTransform(1, old, *size)
    by_torch = resize.apply_segmentation(row.astype(np.float64))
    np.testing.assert_array_equal(nearest((1, old), size, 1, "torch"), by_torch[0, :, 0])
    as_bytes = np.concatenate([row % 256, row // 256, row * 0], 2).astype(np.uint8)
    by_pillow = resize.apply_segmentation(as_bytes)[0].astype(int)
    found = nearest((1, old), size, 1, "pillow")
    np.testing.assert_array_equal(found, by_pillow @ [1, 256, 0])
