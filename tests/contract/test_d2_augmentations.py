"""Augmentations of detectron2, on either provider.

tests/goldens/d2_augmentations.json holds what detectron2's augmentations chose for a seeded numpy
generator, and the number that the generator gave next: a draw too many or too few shows there.
"""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from d2_inputs import IGNORE, REFUSED, image_and_sem_seg
from detectron2.data import transforms as T
from PIL import Image

GOLDENS = json.loads((Path(__file__).parents[1] / "goldens" / "d2_augmentations.json").read_text())
SEED = 7
NUM_DRAWS = 3

AUGMENTATIONS = {
    "shortest edge, range": lambda: T.ResizeShortestEdge((20, 90), 100),
    "shortest edge, choice": lambda: T.ResizeShortestEdge((20, 33, 77), 100, "choice"),
    "shortest edge, one length": lambda: T.ResizeShortestEdge(33, 45),
    "shortest edge, 0 leaves it": lambda: T.ResizeShortestEdge((0, 0), 100),
    "resize": lambda: T.Resize((33, 44), Image.BICUBIC),
    "resize to a square": lambda: T.Resize(31),
    "resize scale": lambda: T.ResizeScale(0.3, 1.7, 77, 66),
    "flip": lambda: T.RandomFlip(0.4),
    "vertical flip": lambda: T.RandomFlip(0.6, horizontal=False, vertical=True),
    "crop, relative": lambda: T.RandomCrop("relative", (0.53, 0.41)),
    "crop, relative range": lambda: T.RandomCrop("relative_range", (0.33, 0.41)),
    "crop, absolute": lambda: T.RandomCrop("absolute", (24, 90)),
    "crop, absolute range": lambda: T.RandomCrop("absolute_range", (10, 50)),
    "crop by area": lambda: T.RandomCrop_CategoryAreaConstraint("absolute", (9, 9), 0.6, IGNORE),
    "crop by area, relative range": lambda: T.RandomCrop_CategoryAreaConstraint(
        "relative_range", (0.2, 0.2), 0.6, IGNORE
    ),
    "crop by area, impossible": lambda: T.RandomCrop_CategoryAreaConstraint(
        "absolute", (9, 9), 0.01
    ),
    "crop by area, no bound": lambda: T.RandomCrop_CategoryAreaConstraint("absolute", (9, 9)),
    "fixed size crop, smaller": lambda: T.FixedSizeCrop((30, 31)),
    "fixed size crop, larger": lambda: T.FixedSizeCrop((50, 70), pad_value=7, seg_pad_value=3),
    "fixed size crop, no padding": lambda: T.FixedSizeCrop((30, 70), pad=False),
    "brightness": lambda: T.RandomBrightness(0.3, 1.6),
    "contrast": lambda: T.RandomContrast(0.3, 1.6),
    "saturation": lambda: T.RandomSaturation(0.3, 1.6),
    "lighting": lambda: T.RandomLighting(9.0),
    "random apply": lambda: T.RandomApply(T.RandomCrop("absolute", (9, 9)), 0.5),
    "random apply, a transform": lambda: T.RandomApply(T.HFlipTransform(60), 0.5),
    "list": lambda: T.AugmentationList(
        [T.ResizeShortestEdge((20, 90), 100), T.RandomFlip(), T.RandomCrop("relative", (0.5, 0.5))]
    ),
}


def draw(augmentation):
    """Three transforms as plain values, the mean of the three images, the next random number."""
    np.random.seed(SEED)
    transforms, means = [], []
    for _ in range(NUM_DRAWS):
        image, sem_seg = image_and_sem_seg()
        aug_input = T.AugInput(image, sem_seg=sem_seg)
        transforms.append(_plain(augmentation(aug_input)))
        means.append(float(aug_input.image.mean()))
    return {"transforms": transforms, "means": means, "next": np.random.rand()}


def _plain(transform):
    if isinstance(transform, T.TransformList):
        return [_plain(t) for t in transform.transforms]
    values = {
        name: np.asarray(value).mean() if name == "src_image" else value
        for name, value in vars(transform).items()
        if name != "_" and isinstance(value, (int, float, np.generic, np.ndarray))
    }
    return [type(transform).__name__, {name: float(value) for name, value in values.items()}]


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_draws_and_results_are_detectron2s(name):
    found, expected = draw(AUGMENTATIONS[name]()), GOLDENS[name]
    assert found["next"] == expected["next"]
    assert _flat(found["transforms"]) == pytest.approx(_flat(expected["transforms"]))
    # Pillow's and numpy's rounding may differ by version
    assert found["means"] == pytest.approx(expected["means"], abs=0.05)


def _flat(item):
    """Nested lists and dicts as one dict from path to value, so that approx can compare them."""
    if not isinstance(item, (list, dict)):
        return {"": item}
    children = item.items() if isinstance(item, dict) else enumerate(item)
    return {f"{k}.{path}": v for k, child in children for path, v in _flat(child).items()}


@pytest.mark.parametrize("name", ["shortest edge, range", "resize scale", "flip", "list"])
def test_what_an_augmentation_returns_can_be_undone(name):
    np.random.seed(SEED)
    image, _ = image_and_sem_seg()
    augmentation = AUGMENTATIONS[name]()
    if name == "list":  # a crop without the original size cannot be undone
        augmentation = T.AugmentationList(augmentation.augs[:2])
    aug_input = T.AugInput(image)
    transform = augmentation(aug_input)
    assert transform.inverse().apply_image(aug_input.image).shape == image.shape


@pytest.mark.parametrize(
    ("size", "length", "max_size", "expected"),
    [
        ((1024, 2048), 512, 4096, (512, 1024)),
        ((1024, 2048), 2048, 2048, (1024, 2048)),
        ((480, 640), 800, 1333, (800, 1067)),
        ((640, 427), 800, 1333, (1199, 800)),
        ((427, 1000), 800, 1333, (569, 1333)),
        ((7, 7), 3, 100, (3, 3)),
    ],
)
def test_shortest_edge_output_shape(size, length, max_size, expected):
    found = T.ResizeShortestEdge.get_output_shape(*size, length, max_size)
    assert found == expected
    assert all(type(edge) is int for edge in found)


# --------------------------------------------------------------------------------------- crops
def test_fixed_size_crop_pads_image_and_labels_right_and_below():
    image, sem_seg = image_and_sem_seg()
    aug_input = T.AugInput(image, sem_seg=sem_seg)
    T.FixedSizeCrop((50, 70), pad_value=128, seg_pad_value=IGNORE)(aug_input)
    assert aug_input.image.shape == (50, 70, 3) and aug_input.sem_seg.shape == (50, 70)
    assert (aug_input.image[:40, :60] == image).all()
    assert (aug_input.image[40:] == 128).all() and (aug_input.image[:, 60:] == 128).all()
    assert (aug_input.sem_seg[40:] == IGNORE).all() and (aug_input.sem_seg[:, 60:] == IGNORE).all()


def test_crop_by_area_avoids_one_category_and_does_not_count_ignored_pixels():
    np.random.seed(SEED)
    image = np.zeros((40, 40, 3), np.uint8)
    sem_seg = np.zeros((40, 40), np.uint8)
    sem_seg[:, 20:] = 1
    sem_seg[:20, 10:30] = IGNORE
    crop = T.RandomCrop_CategoryAreaConstraint("absolute", (16, 16), 0.75, IGNORE)
    num_bounded = 0
    for _ in range(50):
        aug_input = T.AugInput(image, sem_seg=sem_seg)
        crop(aug_input)
        counts = np.bincount(aug_input.sem_seg[aug_input.sem_seg != IGNORE], minlength=2)
        num_bounded += counts.min() > 0 and counts.max() < 0.75 * counts.sum()
    # a single try succeeds with about 0.3; ten tries almost always
    assert num_bounded >= 45


def test_crop_size_of_each_type():
    size = (40, 60)
    assert tuple(T.RandomCrop("relative", (0.5, 0.25)).get_crop_size(size)) == (20, 15)
    assert tuple(T.RandomCrop("absolute", (50, 30)).get_crop_size(size)) == (40, 30)
    np.random.seed(SEED)
    for _ in range(20):
        h, w = T.RandomCrop("relative_range", (0.5, 0.9)).get_crop_size(size)
        assert 20 <= h <= 40 and 54 <= w <= 60
        h, w = T.RandomCrop("absolute_range", (30, 50)).get_crop_size(size)
        assert 30 <= h <= 40 and 30 <= w <= 50


# --------------------------------------------------------------------------- how inputs are passed
class KeepsArguments(T.Augmentation):
    def __init__(self):
        self.seen = None

    def get_transform(self, sem_seg, image):
        self.seen = (sem_seg, image)
        return T.HFlipTransform(image.shape[1])


def test_arguments_are_found_by_name():
    image, sem_seg = image_and_sem_seg()
    augmentation, aug_input = KeepsArguments(), T.AugInput(image, sem_seg=sem_seg)
    transform = augmentation(aug_input)
    assert augmentation.seen[0] is sem_seg and augmentation.seen[1] is image
    assert isinstance(transform, T.HFlipTransform)
    assert (aug_input.image == image[:, ::-1]).all()
    assert (aug_input.sem_seg == sem_seg[:, ::-1]).all()


def test_a_single_argument_of_any_name_is_the_image():
    class OneArgument(T.Augmentation):
        def get_transform(self, picture):
            return T.VFlipTransform(picture.shape[0])

    image, _ = image_and_sem_seg()
    aug_input = T.AugInput(image)
    OneArgument()(aug_input)
    assert (aug_input.image == image[::-1]).all()


def test_input_args_override_names():
    class Renamed(T.Augmentation):
        input_args = ("image", "depth")

        def get_transform(self, a, b):
            assert b == 3
            return T.NoOpTransform()

    class WithDepth(T.AugInput):
        depth = 3

    assert isinstance(Renamed()(WithDepth(image_and_sem_seg()[0])), T.NoOpTransform)


def test_a_missing_input_is_named():
    class NeedsDepth(T.Augmentation):
        def get_transform(self, image, depth):
            return T.NoOpTransform()

    with pytest.raises(AttributeError, match="depth"):
        NeedsDepth()(T.AugInput(image_and_sem_seg()[0]))


def test_variable_arguments_and_other_results_are_refused():
    class Variable(T.Augmentation):
        def get_transform(self, image, **kwargs):
            return T.NoOpTransform()

    class ReturnsNothing(T.Augmentation):
        def get_transform(self, image):
            return None

    for augmentation in (Variable(), ReturnsNothing()):
        with pytest.raises(REFUSED):
            augmentation(T.AugInput(image_and_sem_seg()[0]))


def test_augmentation_list_mixes_augmentations_and_transforms():
    image, sem_seg = image_and_sem_seg()
    boxes = np.array([[0.0, 0, 10, 20]])
    aug_input = T.AugInput(image, boxes=boxes, sem_seg=sem_seg)
    inner = T.TransformList([T.HFlipTransform(30), T.VFlipTransform(20)])
    transforms = aug_input.apply_augmentations([T.Resize((20, 30)), inner, T.NoOpTransform()])
    assert isinstance(transforms, T.TransformList)
    assert aug_input.image.shape == (20, 30, 3) and aug_input.sem_seg.shape == (20, 30)
    assert aug_input.boxes.tolist() == [[25, 10, 30, 20]]
    assert (transforms.apply_image(image) == aug_input.image).all()
    assert (transforms.apply_segmentation(sem_seg) == aug_input.sem_seg).all()


def test_apply_augmentations_gives_back_what_it_got():
    image, _ = image_and_sem_seg()
    resized, transforms = T.apply_augmentations([T.Resize((20, 30))], image)
    assert resized.shape == (20, 30, 3) and isinstance(transforms, T.TransformList)
    aug_input = T.AugInput(image)
    same, _ = T.apply_transform_gens([T.Resize((20, 30))], aug_input)
    assert same is aug_input and aug_input.image.shape == (20, 30, 3)
    assert issubclass(T.ResizeShortestEdge, T.TransformGen)


@pytest.mark.parametrize("image", [np.zeros((2, 4, 6, 3), np.uint8), [[1, 2], [3, 4]]])
def test_images_that_are_none_are_refused(image):
    with pytest.raises(REFUSED):
        T.AugInput(image)


@pytest.mark.parametrize(
    "make",
    [
        lambda: T.RandomFlip(horizontal=True, vertical=True),
        lambda: T.RandomFlip(horizontal=False, vertical=False),
        lambda: T.RandomCrop("by_hand", (1, 1)),
        lambda: T.ResizeShortestEdge((1, 2, 3), 10, "range"),
        lambda: T.ResizeShortestEdge((1, 2), 10, "normal"),
        lambda: T.RandomApply(T.RandomFlip(), 1.5),
    ],
)
def test_contradictory_arguments_are_refused(make):
    with pytest.raises(REFUSED):
        make()


def test_repr_shows_what_differs_from_the_defaults():
    assert repr(T.RandomFlip()) == "RandomFlip()"
    crop = T.RandomCrop("relative", (0.5, 0.4))
    assert repr(crop) == "RandomCrop(crop_type='relative', crop_size=(0.5, 0.4))"
    assert str(T.AugmentationList([T.RandomFlip(), crop])).startswith("AugmentationList[RandomFlip")


def test_subclasses_can_keep_their_arguments_with_init():
    class Shrink(T.Augmentation):
        def __init__(self, factor, interp=Image.BILINEAR):
            super().__init__()
            self._init(locals())

        def get_transform(self, image):
            h, w = image.shape[:2]
            return T.ResizeTransform(h, w, h // self.factor, w // self.factor, self.interp)

    image, _ = T.apply_augmentations([Shrink(4)], image_and_sem_seg()[0])
    assert image.shape == (10, 15, 3)
    assert repr(Shrink(4)) == "Shrink(factor=4)"


def test_augmentations_and_transforms_travel_to_workers():
    np.random.seed(SEED)
    augmentations = pickle.loads(pickle.dumps(T.AugmentationList([make() for make in PORTABLE])))
    image, sem_seg = image_and_sem_seg()
    transforms = augmentations(T.AugInput(image, sem_seg=sem_seg))
    copied = pickle.loads(pickle.dumps(transforms.transforms))
    assert (T.TransformList(copied).apply_image(image) == transforms.apply_image(image)).all()


PORTABLE = [AUGMENTATIONS[name] for name in ("flip", "crop by area", "shortest edge, choice")]
