"""Targets of instance training: polygons and run lengths by hand, and what is wrong with them."""

import numpy as np
import pycocotools.mask
import pytest
import torch
from mapper_inputs import refuses, save

from mask2former.data import annotation_masks, build_mapper

SIZE = HEIGHT, WIDTH = 40, 60


@pytest.fixture
def cfg(cfg):
    cfg.INPUT.DATASET_MAPPER_NAME = "mask_former_instance"
    cfg.INPUT.MIN_SIZE_TRAIN = (HEIGHT,)
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 5
    return cfg


def _rectangle(left, top, right, bottom) -> list:
    return [left, top, right, top, right, bottom, left, bottom]


def _mask(left, top, right, bottom, size=SIZE) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[top:bottom, left:right] = True
    return mask


def _sample(tmp_path, *annotations) -> dict:
    return save(tmp_path, np.zeros(SIZE, np.uint8), annotations=list(annotations))


def _map(cfg, tmp_path, *annotations):
    return build_mapper(cfg, True)(_sample(tmp_path, *annotations))["instances"]


def test_objects_become_targets_in_their_order(cfg, tmp_path):
    """Also where they overlap, and of several polygons."""
    boxes = [(5, 10, 25, 30), (15, 5, 40, 20), (50, 30, 60, 40)]
    sample = _sample(
        tmp_path,
        {"category_id": 3, "segmentation": [_rectangle(*boxes[0])], "iscrowd": 0},
        {"category_id": 1, "segmentation": [_rectangle(*boxes[1]), _rectangle(*boxes[2])]},
    )
    mapped = build_mapper(cfg, True)(sample)
    instances = mapped["instances"]
    assert instances.gt_classes.tolist() == [3, 1]
    assert instances.gt_classes.dtype == torch.int64 and instances.gt_masks.dtype == torch.bool
    assert (instances.gt_masks[0].numpy() == _mask(*boxes[0])).all()
    assert (instances.gt_masks[1].numpy() == (_mask(*boxes[1]) | _mask(*boxes[2]))).all()
    assert "annotations" not in mapped and "annotations" in sample


@pytest.mark.parametrize("seed", range(6))
def test_objects_move_with_their_picture(cfg, tmp_path, seed):
    """Twice the size, cropped, flipped, padded: rectangles stay exact, each way of giving them."""
    box = (11, 6, 37, 29)
    rle = pycocotools.mask.encode(np.asfortranarray(_mask(*box), np.uint8))
    counts = [11 * HEIGHT + 6, 23, *[HEIGHT - 23, 23] * 25]
    counts.append(HEIGHT * WIDTH - sum(counts))
    forms = [[_rectangle(*box)], rle, {"size": SIZE, "counts": counts}]
    forms.append({**rle, "counts": rle["counts"].decode()})  # as a JSON file has it
    image = _mask(*box).astype(np.uint8) * 255
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.SIZE_DIVISIBILITY = (2 * HEIGHT,), 64
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE = True, "absolute", (60, 70)
    cfg.INPUT.RANDOM_FLIP = "vertical" if seed % 2 else "horizontal"
    annotations = [{"category_id": 0, "segmentation": form} for form in forms]
    sample = save(tmp_path, image, annotations=annotations)
    np.random.seed(seed)
    mapped = build_mapper(cfg, True)(sample)
    numbers = np.random.RandomState(seed)
    numbers.choice((2 * HEIGHT,))
    top, left = numbers.randint(2 * HEIGHT - 60 + 1), numbers.randint(2 * WIDTH - 70 + 1)
    expected = _mask(*(2 * x for x in box), (2 * HEIGHT, 2 * WIDTH))[
        top : top + 60, left : left + 70
    ]
    if numbers.uniform() < 0.5:
        expected = expected[::-1] if seed % 2 else expected[:, ::-1]
    expected = np.pad(expected, ((0, 4), (0, 58)))
    assert mapped["image"].shape == (3, 64, 128)
    assert mapped["instances"].gt_masks.tolist() == [expected.tolist()] * 4


def test_what_is_not_learned(cfg, tmp_path):
    """Crowds, and what covers no pixel."""
    instances = _map(
        cfg,
        tmp_path,
        {"category_id": 0, "iscrowd": 1, "segmentation": {"size": SIZE, "counts": [0, 2400]}},
        {"category_id": 1, "segmentation": []},
        {"category_id": 1, "segmentation": [[]]},
        {"category_id": 1, "segmentation": [[1, 1, 30, 30]]},  # two corners; not a box
        {"category_id": 1, "segmentation": [[5, 5, 5, 5, 5, 5]]},
        {"category_id": 1, "segmentation": [_rectangle(70, 0, 90, 30)]},  # beside the picture
        {"category_id": 1, "segmentation": [_rectangle(-9e9, -9e9, -1e9, -1e9)]},
        {"category_id": 1, "segmentation": {"size": SIZE, "counts": [HEIGHT * WIDTH]}},
        {"category_id": 2, "segmentation": [[1, 1, 30, 30], _rectangle(20, 20, 30, 30)]},
    )
    assert instances.gt_classes.tolist() == [2]
    assert (instances.gt_masks[0].numpy() == _mask(20, 20, 30, 30)).all()


def test_polygons_that_reach_over_the_border(cfg, tmp_path):
    instances = _map(
        cfg,
        tmp_path,
        {"category_id": 0, "segmentation": [_rectangle(-20, 30, 30, 99)]},
        {"category_id": 0, "segmentation": [_rectangle(-1e9, -1e9, 1e9, 1e9)]},
        {"category_id": 0, "segmentation": [[-60, 20, 30, -70, 120, 20, 30, 110]]},
    )
    first, second, third = instances.gt_masks
    assert (first.numpy() == _mask(0, 30, 30, 40)).all()
    assert second.all() and third.all()


def _is_inside(x: np.ndarray, y: np.ndarray, polygon: np.ndarray) -> np.ndarray:
    """Whether a ray from each point crosses the polygon an odd number of times."""
    inside = np.zeros(x.shape, bool)
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0)):
        if (y0 > y).any() or (y1 > y).any():
            between = (y0 > y) != (y1 > y)
            with np.errstate(divide="ignore", invalid="ignore"):
                inside ^= between & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    return inside


@pytest.mark.parametrize("seed", range(20))
def test_clipping_keeps_what_is_inside(seed):
    """Of stars with corners on all sides, self-intersecting ones too."""
    rng = np.random.RandomState(seed)
    polygon = rng.uniform(-40, 90, (rng.randint(3, 12), 2))
    clipped = annotation_masks.clip_polygon(polygon, *SIZE)
    x, y = rng.uniform(0, WIDTH, 4000), rng.uniform(0, HEIGHT, 4000)
    assert (_is_inside(x, y, polygon) == _is_inside(x, y, clipped)).all()
    assert (clipped >= 0).all() and (clipped <= (WIDTH, HEIGHT)).all()
    inner = polygon.clip((1, 1), (WIDTH - 1, HEIGHT - 1))
    assert annotation_masks.clip_polygon(inner, *SIZE) is inner


@pytest.mark.parametrize("seed", range(10))
def test_runs_are_those_of_the_drawn_mask(seed):
    """Of several stars that reach over the border, of none, and of a mask."""
    rng = np.random.RandomState(seed)
    stars = [rng.uniform(-20, 70, (rng.randint(3, 9), 2)) for _ in range(seed % 4)]
    mask = annotation_masks.draw(stars, *SIZE)
    assert mask.any() == bool(stars)
    for segmentation in (stars, mask.astype(np.uint8)):
        runs = annotation_masks.run_lengths(segmentation, *SIZE)
        assert (np.repeat(np.arange(len(runs)) % 2 > 0, runs) == mask.ravel(order="F")).all()


def test_a_crop_may_leave_no_target(cfg, tmp_path):
    cfg.INPUT.DROP_EMPTY_MASKS = True
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE = True, "absolute", (10, 10)
    mapper = build_mapper(cfg, True)
    sample = _sample(
        tmp_path,
        {"category_id": 4, "segmentation": [_rectangle(0, 0, 30, 40)]},
        {"category_id": 1, "segmentation": {"size": SIZE, "counts": [0, 30 * HEIGHT, 30 * HEIGHT]}},
    )
    np.random.seed(0)
    counts = []
    for _ in range(30):
        instances = mapper(sample)["instances"]
        counts.append(len(instances))
        assert len(instances.gt_classes) == len(instances.gt_masks)
        assert instances.gt_masks.shape[1:] == (10, 10)
        assert instances.gt_masks.flatten(1).any(1).all()
    assert {0, 2} == set(counts)


def test_a_picture_without_objects(cfg, tmp_path):
    instances = _map(cfg, tmp_path)
    assert instances.gt_classes.shape == (0,) and instances.gt_classes.dtype == torch.int64
    assert instances.gt_masks.shape == (0, *SIZE) and instances.gt_masks.dtype == torch.bool


RECTANGLE = _rectangle(1, 2, 30, 40)
# Of another size than where it is used.
COMPRESSED = pycocotools.mask.encode(np.asfortranarray(np.ones((30, 60), np.uint8)))["counts"]


@pytest.mark.parametrize(
    "segmentation, words",
    [
        ([RECTANGLE[:-1]], ["(7,)", "not an even number"]),
        ([[*RECTANGLE[:-1], float("nan")]], ["no numbers"]),
        ([[*RECTANGLE[:-1], float("inf")]], ["no numbers"]),
        ([[*RECTANGLE[:-1], None]], ["no numbers"]),
        ([[*RECTANGLE[:-1], "x"]], ["no list of numbers", "'x'"]),
        (RECTANGLE, ["has 1 where", "a list of its own"]),
        ([[[1, 2], [30, 2], [30, 40]]], ["(3, 2)", "x0, y0"]),
        ("polygon", ["type str", "a list of lists"]),
        (None, ["type NoneType"]),
        ({"counts": [0, 2400]}, ["size and counts"]),
        ({"size": [60, 40], "counts": [0, 2400]}, ["[60, 40]", "[40, 60]"]),
        ({"size": SIZE, "counts": [0, 2401]}, ["do not fill 40x60", "2401"]),
        ({"size": SIZE, "counts": [-5, 2405]}, ["do not fill"]),
        ({"size": SIZE, "counts": "~~~~"}, ["do not fill 40x60"]),
        ({"size": SIZE, "counts": ""}, ["do not fill 40x60", "break off"]),
        ({"size": SIZE, "counts": COMPRESSED}, ["do not fill 40x60", "cover 1800"]),
    ],
)
def test_segmentations_that_are_wrong(cfg, tmp_path, segmentation, words):
    good = {"category_id": 0, "segmentation": [RECTANGLE]}
    wrong = {"category_id": 0, "segmentation": segmentation}
    refuses(cfg, _sample(tmp_path, good, wrong), "image.png: annotation number 1: its", *words)
    refuses(cfg, _sample(tmp_path, {**wrong, "id": 88}), "image.png: annotation 88: its", *words)


@pytest.mark.parametrize("seed", range(10))
def test_whole_run_lengths_are_known_as_such(seed):
    """Their length is read off the compressed numbers, short and long, rising and falling."""
    rng = np.random.RandomState(seed)
    size = rng.randint(1, 300, 2).tolist()
    mask = rng.rand(size[0] // 9 + 1, size[1] // 40 + 1).repeat(9, 0).repeat(40, 1) < rng.rand()
    mask = mask[: size[0], : size[1]] ^ (rng.rand(*size) < rng.choice([0, 0.01, 0.5]))
    rle = pycocotools.mask.encode(np.asfortranarray(mask, np.uint8))
    assert (annotation_masks.read_segmentation(rle, *size) == mask).all()


def test_annotations_that_are_wrong(cfg, tmp_path):
    box = {"category_id": 0, "id": 7}
    refuses(cfg, _sample(tmp_path, box), "annotation 7 has no segmentation")
    for category in (5, -1, None, "0"):
        wrong = {"category_id": category, "segmentation": [RECTANGLE]}
        words = "number 0", f"category_id={category!r}", "5 classes (0 to 4)", "NUM_CLASSES"
        refuses(cfg, _sample(tmp_path, wrong), *words)
