"""Large-scale jitter and DETR's crop by hand, with the same random numbers."""

import numpy as np
import pycocotools.mask
import pytest
import torch
from mapper_inputs import made_sample, save, save_segments
from PIL import Image

from mask2former.data import build_mapper

SIDE = 60


@pytest.fixture
def jitter(cfg):
    cfg.INPUT.DATASET_MAPPER_NAME = "coco_panoptic_lsj"
    cfg.INPUT.IMAGE_SIZE = SIDE
    cfg.INPUT.MIN_SIZE_TRAIN = (7,)  # belongs to other recipes
    return cfg


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("flip", ["none", "horizontal", "vertical"])
def test_jitter_by_hand(jitter, tmp_path, seed, flip):
    jitter.INPUT.RANDOM_FLIP = flip
    sample = made_sample(tmp_path, seed)
    np.random.seed(seed)
    mapped = build_mapper(jitter, is_train=True)(sample)

    numbers = np.random.RandomState(seed)
    files = [Image.open(sample[key]) for key in ("file_name", "pan_seg_file_name")]
    if flip != "none" and numbers.uniform() < 0.5:
        axis = Image.Transpose.FLIP_LEFT_RIGHT
        axis = axis if flip == "horizontal" else Image.Transpose.FLIP_TOP_BOTTOM
        files = [file.transpose(axis) for file in files]
    scale = numbers.uniform(0.1, 2.0) * SIDE / max(files[0].size)
    size = [int(np.round(length * scale)) for length in files[0].size]  # (width, height)
    methods = (Image.Resampling.BILINEAR, Image.Resampling.NEAREST)
    image, colors = (np.asarray(f.resize(size, m)) for f, m in zip(files, methods))
    share = numbers.uniform()  # one number for both axes
    left, top = (int(np.round(max(length - SIDE, 0) * share)) for length in size)
    image, colors = (x[top : top + SIDE, left : left + SIDE] for x in (image, colors))
    expected = np.full((SIDE, SIDE, 3), 128, np.uint8)
    height, width = image.shape[:2]
    expected[:height, :width] = image
    assert (mapped["image"].numpy() == expected.transpose(2, 0, 1)).all()

    ids = colors.astype(int) @ (1, 256, 65536)
    segments = [s for s in sample["segments_info"] if not s["iscrowd"] and (ids == s["id"]).any()]
    instances = mapped["instances"]
    assert instances.image_size == (SIDE, SIDE)
    assert instances.gt_classes.tolist() == [s["category_id"] for s in segments]
    assert not instances.gt_masks[:, height:].any() and not instances.gt_masks[:, :, width:].any()
    for mask, segment in zip(instances.gt_masks, segments):
        assert (mask[:height, :width].numpy() == (ids == segment["id"])).all()


def test_padding_belongs_to_nobody(jitter, tmp_path):
    """Whatever its colour, objects that reach over the border, and run lengths."""
    jitter.INPUT.MIN_SCALE = jitter.INPUT.MAX_SCALE = 1.0
    ids = np.full((20, 40), 256**3 - 1)
    ids[:, 20:] = 255
    segments = [{"id": i, "category_id": 1} for i in (256**3 - 1, 255)]
    instances = build_mapper(jitter, True)(save_segments(tmp_path, ids, segments))["instances"]
    assert instances.gt_masks.sum((1, 2)).tolist() == [900, 900]  # 30 x 60 of them are picture

    jitter.INPUT.DATASET_MAPPER_NAME = "coco_instance_lsj"
    everything = np.asfortranarray(np.ones((20, 40), np.uint8))
    annotations = [
        {"category_id": 0, "segmentation": pycocotools.mask.encode(everything)},
        {"category_id": 1, "segmentation": [[-50, -50, 90, -50, 90, 90, -50, 90]]},
    ]
    sample = save(tmp_path, np.zeros((20, 40), np.uint8), annotations=annotations)
    mapped = build_mapper(jitter, True)(sample)
    picture = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    picture[:30] = True
    assert (mapped["image"][:, ~picture] == 128).all() and not mapped["image"][:, picture].any()
    assert mapped["instances"].gt_masks.tolist() == [picture.tolist()] * 2


@pytest.mark.parametrize("size", [(2, 400), (400, 1)])
def test_a_very_thin_picture(jitter, tmp_path, size):
    """At small scales nothing would be left of it, were its size only rounded."""
    sample = save_segments(tmp_path, np.ones(size, int), [{"id": 1, "category_id": 3}])
    mapper = build_mapper(jitter, True)
    for seed in range(10):
        np.random.seed(seed)
        instances = mapper(sample)["instances"]
        height, width = (int(part.sum()) for part in (instances.gt_masks[0].any(d) for d in (1, 0)))
        assert min(height, width) == 1 and 4 <= max(height, width) <= SIDE


@pytest.mark.parametrize("seed", range(10))
def test_detr_by_hand(cfg, tmp_path, seed):
    cfg.INPUT.DATASET_MAPPER_NAME = "detr_panoptic"
    cfg.INPUT.RANDOM_FLIP = "horizontal"
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (50, 70), 90
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.TYPE = True, "absolute_range"
    cfg.INPUT.CROP.SIZE = (384, 600)
    sample = made_sample(tmp_path, 0)
    np.random.seed(seed)
    mapped = build_mapper(cfg, is_train=True)(sample)

    numbers = np.random.RandomState(seed)
    is_cropped = numbers.rand() <= 0.5
    image = Image.open(sample["file_name"])  # 150 wide, 100 high
    if numbers.uniform() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if is_cropped:
        shortest = int(numbers.choice((400, 500, 600)))
        image = image.resize((shortest * 3 // 2, shortest), Image.Resampling.BILINEAR)
        height, width = (numbers.randint(min(n, 384), min(n, 600) + 1) for n in image.size[::-1])
        top, left = (numbers.randint(n - m + 1) for n, m in zip(image.size[::-1], (height, width)))
        image = image.crop((left, top, left + width, top + height))
    scale = int(numbers.choice((50, 70))) / min(image.size)
    scale = min(scale, 90 / max(image.size))
    image = image.resize([int(n * scale + 0.5) for n in image.size], Image.Resampling.BILINEAR)
    assert (mapped["image"].numpy() == np.asarray(image).transpose(2, 0, 1)).all()
    assert mapped["instances"].image_size == image.size[::-1]


def test_detr_without_crop_never_crops(cfg, tmp_path):
    cfg.INPUT.DATASET_MAPPER_NAME = "detr_panoptic"
    cfg.INPUT.MIN_SIZE_TRAIN = (100,)
    sample = made_sample(tmp_path, 0)
    mapper = build_mapper(cfg, True)
    for seed in range(6):
        np.random.seed(seed)
        assert (
            mapper(sample)["image"].numpy().transpose(1, 2, 0) == Image.open(sample["file_name"])
        ).all()


@pytest.mark.parametrize(
    "key, value", [("MIN_SCALE", 0.0), ("MIN_SCALE", 2.5), ("MAX_SCALE", 0.05), ("IMAGE_SIZE", 0)]
)
def test_scales_that_make_no_sense(jitter, key, value):
    jitter.INPUT[key] = value
    with pytest.raises(ValueError, match=f"{key}={value}"):
        build_mapper(jitter, is_train=True)
