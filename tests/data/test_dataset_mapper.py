"""The mapper against hand computation with the same random numbers, and its complaints."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, DatasetMapper
from mapper_inputs import made_sample, refuses, save
from PIL import Image

from mask2former.data import build_mapper
from mask2former.data.dataset_mapper import RECIPES


@pytest.fixture
def sample(datasets_root):
    return DatasetCatalog.get("mini_cityscapes_fine_sem_seg_train")[0]


def _check_targets(mapped: dict, ignore: int = 255) -> None:
    """instances are the classes of sem_seg, in order, each with its own mask."""
    label, instances = mapped["sem_seg"], mapped["instances"]
    assert label.dtype == instances.gt_classes.dtype == torch.int64
    assert instances.gt_masks.dtype == torch.bool
    assert instances.image_size == tuple(label.shape) == tuple(mapped["image"].shape[1:])
    classes = sorted(set(label.flatten().tolist()) - {ignore})
    assert instances.gt_classes.tolist() == classes
    for train_id, mask in zip(classes, instances.gt_masks):
        assert torch.equal(mask, label == train_id)


def test_without_augmentation_files_come_through(cfg, sample):
    mapped = build_mapper(cfg, is_train=True)(sample)
    pixels = np.asarray(Image.open(sample["file_name"]))
    assert mapped["image"].dtype == torch.uint8
    assert (mapped["image"].numpy() == pixels.transpose(2, 0, 1)).all()
    assert (mapped["sem_seg"].numpy() == np.asarray(Image.open(sample["sem_seg_file_name"]))).all()
    assert (mapped["height"], mapped["width"]) == (96, 192)
    assert mapped["file_name"] == sample["file_name"] and "instances" not in sample
    _check_targets(mapped)
    cfg.INPUT.FORMAT = "BGR"
    assert torch.equal(build_mapper(cfg, True)(sample)["image"], mapped["image"].flip(0))


@pytest.mark.parametrize("seed", range(8))
def test_resize_crop_and_flip_by_hand(cfg, sample, seed):
    cfg.INPUT.MIN_SIZE_TRAIN = (64, 96, 128)
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.TYPE = True, "absolute"
    cfg.INPUT.CROP.SIZE = (50, 90)
    cfg.INPUT.RANDOM_FLIP = "horizontal"
    np.random.seed(seed)
    mapped = build_mapper(cfg, is_train=True)(sample)

    numbers = np.random.RandomState(seed)  # the same ones, in the order of use
    height = int(numbers.choice((64, 96, 128)))
    width = 2 * height
    image = Image.open(sample["file_name"]).resize((width, height), Image.Resampling.BILINEAR)
    label = np.asarray(Image.open(sample["sem_seg_file_name"]))
    rows = (np.arange(height) * (96 / height)).astype(int)  # a nearest neighbour by rounding down
    columns = (np.arange(width) * (192 / width)).astype(int)
    top, left = numbers.randint(height - 50 + 1), numbers.randint(width - 90 + 1)
    expected_image = np.asarray(image)[top : top + 50, left : left + 90]
    expected_label = label[rows][:, columns][top : top + 50, left : left + 90]
    if numbers.uniform() < 0.5:
        expected_image, expected_label = expected_image[:, ::-1], expected_label[:, ::-1]
    assert (mapped["image"].numpy() == expected_image.transpose(2, 0, 1)).all()
    assert (mapped["sem_seg"].numpy() == expected_label).all()
    _check_targets(mapped)


@pytest.mark.parametrize("seed", range(4))
def test_labels_stay_with_their_pixels(cfg, tmp_path, seed):
    """A picture whose colour tells the class still does so after resize, crop and flip."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 20, (6, 10)).astype(np.uint8)
    blocks[blocks == 19] = 255
    label = blocks.repeat(20, 0).repeat(20, 1)
    image = np.stack([label, 255 - label, label // 2], 2)
    cfg.INPUT.MIN_SIZE_TRAIN = (80, 150, 200)
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.TYPE = True, "absolute"
    cfg.INPUT.CROP.SIZE = (70, 90)
    cfg.INPUT.RANDOM_FLIP = "vertical" if seed % 2 else "horizontal"
    np.random.seed(seed)
    mapped = build_mapper(cfg, is_train=True)(save(tmp_path, image, label))
    red, sem_seg = mapped["image"][0].numpy(), mapped["sem_seg"].numpy()
    inside = np.ones_like(sem_seg, bool)  # away from borders, where resizing mixes colours
    for axis in (0, 1):
        for step in (-3, -2, -1, 1, 2, 3):
            inside &= np.roll(sem_seg, step, axis) == sem_seg
    inside[:3] = inside[-3:] = inside[:, :3] = inside[:, -3:] = False
    assert inside.mean() > 0.2
    assert (red[inside] == sem_seg[inside]).all()


def test_a_crop_is_drawn_again_while_one_class_fills_it(cfg, tmp_path):
    label = np.zeros((100, 200), np.uint8)
    label[:, 150:] = 1
    label[:30] = 255  # does not count
    sample = save(tmp_path, label[..., None].repeat(3, 2), label)
    cfg.INPUT.MIN_SIZE_TRAIN = (100,)
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.TYPE = True, "absolute"
    cfg.INPUT.CROP.SIZE = (50, 60)
    shares = {}
    for limit in (1.0, 0.8):
        cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA = limit
        mapper = build_mapper(cfg, is_train=True)
        np.random.seed(0)
        crops = [mapper(sample)["sem_seg"] for _ in range(60)]
        counts = [crop[crop != 255].bincount() for crop in crops]
        shares[limit] = np.mean([count.max() / count.sum() > 0.8 for count in counts])
    # A third of the places are good, so one draw misses with 2/3 and ten with (2/3)^10 = 2 %.
    assert shares[1.0] > 0.5 and shares[0.8] < 0.1


@pytest.mark.parametrize("limit", [1.0, 0.8])
@pytest.mark.parametrize("crop_type", ["relative", "relative_range"])
@pytest.mark.parametrize("size", [(1, 40), (40, 1)])
def test_a_crop_of_a_very_thin_picture(cfg, tmp_path, size, crop_type, limit):
    """Nothing would be left of it, were its size only rounded."""
    label = np.arange(40, dtype=np.uint8).reshape(size) % 19
    sample = save(tmp_path, label[..., None].repeat(3, 2), label)
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (1,), 40
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.TYPE = True, crop_type
    cfg.INPUT.CROP.SIZE = (0.25, 0.25)
    cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA = limit
    mapper = build_mapper(cfg, is_train=True)
    for seed in range(10):
        np.random.seed(seed)
        mapped = mapper(sample)
        assert min(mapped["image"].shape[1:]) == 1 and max(mapped["image"].shape[1:]) >= 10
        assert mapped["image"][0].equal(mapped["sem_seg"])


def test_colours_change_and_labels_do_not(cfg, sample):
    plain = build_mapper(cfg, is_train=True)(sample)
    cfg.INPUT.COLOR_AUG_SSD = True
    mapper = build_mapper(cfg, is_train=True)
    np.random.seed(0)
    random.seed(0)
    mapped = [mapper(sample) for _ in range(10)]
    assert all(torch.equal(entry["sem_seg"], plain["sem_seg"]) for entry in mapped)
    changed = [not torch.equal(entry["image"], plain["image"]) for entry in mapped]
    assert sum(changed) >= 8  # each of four changes is made half of the time: 1/16 stay
    random.seed(0)
    assert torch.equal(mapper(sample)["image"], mapped[0]["image"])


def test_flip_is_made_half_of_the_time(cfg, sample):
    cfg.INPUT.RANDOM_FLIP = "horizontal"
    mapper = build_mapper(cfg, is_train=True)
    plain = torch.from_numpy(np.array(Image.open(sample["file_name"]))).permute(2, 0, 1)
    np.random.seed(0)
    images = [mapper(sample)["image"] for _ in range(100)]
    flipped = [torch.equal(image, plain.flip(2)) for image in images]
    assert all(f or torch.equal(image, plain) for f, image in zip(flipped, images))
    assert 35 <= sum(flipped) <= 65


def test_padding_is_grey_and_ignored(cfg, sample):
    cfg.INPUT.SIZE_DIVISIBILITY = 80
    mapped = build_mapper(cfg, is_train=True)(sample)
    assert mapped["image"].shape == (3, 160, 240) and mapped["image"].dtype == torch.uint8
    plain = np.asarray(Image.open(sample["file_name"])).transpose(2, 0, 1)
    assert (mapped["image"][:, :96, :192].numpy() == plain).all()
    padding = torch.ones(160, 240, dtype=torch.bool)
    padding[:96, :192] = False
    assert (mapped["image"][:, padding] == 128).all()
    assert (mapped["sem_seg"][padding] == 255).all()
    assert not mapped["instances"].gt_masks[:, padding].any()
    _check_targets(mapped)


def test_an_unlabelled_picture_has_no_targets(cfg, tmp_path):
    label = np.full((96, 100), 255, np.uint8)
    mapped = build_mapper(cfg, True)(save(tmp_path, label[..., None].repeat(3, 2), label))
    assert mapped["instances"].gt_classes.shape == (0,)
    assert mapped["instances"].gt_masks.shape == (0, 96, 100)
    _check_targets(mapped)


def test_another_ignore_value(cfg, tmp_path):
    label = np.array([[7, 2], [0, 7]], np.uint8)
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE = 3, 7
    cfg.INPUT.MIN_SIZE_TRAIN = (2,)
    built = build_mapper(cfg, True)(save(tmp_path, label[..., None].repeat(3, 2), label))
    assert built["instances"].gt_classes.tolist() == [0, 2]
    assert built["instances"].gt_masks.tolist() == [
        [[False, False], [True, False]],
        [[False, True], [False, False]],
    ]
    _check_targets(built, ignore=7)


@pytest.mark.parametrize("ignore", [-1, -2, -100])
def test_an_ignore_value_below_zero(cfg, tmp_path, ignore):
    """The labels are signed, which PNGs cannot have; one of them is far from the others."""
    label = np.array([[ignore, 2], [150, ignore]], np.int32)
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE = 151, ignore
    cfg.INPUT.MIN_SIZE_TRAIN = (2,)
    sample = save(tmp_path, np.zeros((2, 2, 3), np.uint8))
    sample["sem_seg_file_name"] = str(tmp_path / "label.tif")
    Image.fromarray(label).save(sample["sem_seg_file_name"])
    built = build_mapper(cfg, True)(sample)
    assert built["sem_seg"].tolist() == label.tolist()
    assert built["instances"].gt_classes.tolist() == [2, 150]
    _check_targets(built, ignore)


def test_testing_is_as_in_detectron2(cfg, datasets_root):
    for size, longest in ((96, 1333), (60, 1333), (150, 200), (0, 1333)):
        cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = size, longest
        ours, theirs = build_mapper(cfg, is_train=False), DatasetMapper(cfg, is_train=False)
        for entry in DatasetCatalog.get("mini_cityscapes_fine_sem_seg_val"):
            mapped, expected = ours(entry), theirs(dict(entry))
            assert torch.equal(mapped["image"], expected["image"])
            assert "instances" not in mapped
            for key in ("file_name", "height", "width"):
                assert mapped[key] == expected[key]


@pytest.mark.parametrize("key, value", [("FORMAT", "rgb"), ("RANDOM_FLIP", "both")])
def test_unknown_values(cfg, key, value):
    cfg.INPUT[key] = value
    with pytest.raises(ValueError, match=f"INPUT.{key}='{value}'; set it to "):
        build_mapper(cfg, is_train=True)


def test_unknown_mapper_name(cfg):
    cfg.INPUT.DATASET_MAPPER_NAME = "mask_former_semantik"
    with pytest.raises(ValueError, match=r"'mask_former_semantik' .*'mask_former_semantic'"):
        build_mapper(cfg, is_train=True)


def test_label_values_outside_the_classes(cfg, tmp_path):
    label = np.zeros((8, 8), np.uint8)
    label[0, :3] = (19, 33, 255)
    sample = save(tmp_path, label[..., None].repeat(3, 2), label)
    refuses(cfg, sample, "label.png", "[19, 33]", "0 to 18", "255", "NUM_CLASSES")
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 34
    cfg.INPUT.MIN_SIZE_TRAIN = (8,)
    mapped = build_mapper(cfg, is_train=True)(sample)
    assert mapped["instances"].gt_classes.tolist() == [0, 19, 33]


@pytest.mark.parametrize("key", ["file_name", "sem_seg_file_name"])
@pytest.mark.parametrize("keep", [0, 20, 60, 0.5, 0.9])
def test_truncated_pictures(cfg, sample, tmp_path, key, keep):
    whole = Path(sample[key]).read_bytes()
    broken = tmp_path / "broken.png"
    broken.write_bytes(whole[: keep if isinstance(keep, int) else int(keep * len(whole))])
    message = refuses(cfg, {**sample, key: str(broken)}, f"{broken}: not a whole picture", "again")
    assert message.count("broken.png") <= 2  # Pillow names the file once more; nobody else does
    assert "restore the file" not in message


@pytest.mark.parametrize("key", ["file_name", "sem_seg_file_name"])
def test_missing_pictures(cfg, sample, key):
    refuses(cfg, {**sample, key: "gone/picture.png"}, "gone/picture.png: no such file")


def test_sizes_that_disagree(cfg, sample, tmp_path):
    refuses(cfg, {**sample, "height": 97}, sample["file_name"], "96x192", "97x192")
    label = np.zeros((95, 192), np.uint8)
    other = save(tmp_path, label, label)["sem_seg_file_name"]
    refuses(cfg, {**sample, "sem_seg_file_name": other}, sample["file_name"], "96x192", "95x192")


def test_labels_that_are_colours_or_not_there(cfg, sample):
    color = sample["sem_seg_file_name"].replace("labelTrainIds", "color")
    refuses(cfg, {**sample, "sem_seg_file_name": color}, color, "one channel", "(96, 192, 4)")
    without = {key: value for key, value in sample.items() if key != "sem_seg_file_name"}
    refuses(cfg, without, sample["file_name"], "nor anything else to learn from", "DATASETS.TRAIN")


KINDS = {
    "semantic": ("sem_seg_file_name",),
    "instance": ("annotations",),
    "panoptic": ("pan_seg_file_name", "segments_info"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", RECIPES)
def test_a_dataset_of_another_kind(cfg, tmp_path, name, kind):
    sample = made_sample(tmp_path, 0)
    sample = {key: sample[key] for key in ("file_name", *KINDS[kind])}
    cfg.INPUT.DATASET_MAPPER_NAME = name
    if kind in name:
        assert "instances" in build_mapper(cfg, True)(sample)
        return
    fitting = [other for other in RECIPES if kind in other]
    needed = next(keys[0] for needed, keys in KINDS.items() if needed in name)
    words = f"gives no {needed}, but {KINDS[kind][0]}", "INPUT.DATASET_MAPPER_NAME to"
    message = refuses(cfg, sample, sample["file_name"], *words, *fitting)
    assert name not in message
