"""detectron2's default mapper and label loader, on either provider."""

import copy

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from d2_inputs import REFUSED, annotation
from detectron2.config import get_cfg
from detectron2.data import DatasetMapper
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.data.datasets import load_sem_seg
from PIL import Image

RGB = np.random.RandomState(0).randint(0, 256, (4, 6, 3)).astype(np.uint8)
MASK = (RGB[:, :, 0] > 100).astype(np.uint8)
RLE = mask_util.encode(np.asfortranarray(MASK))


@pytest.fixture
def rgb_file(tmp_path):
    path = tmp_path / "rgb.png"
    Image.fromarray(RGB).save(path)
    return str(path)


@pytest.fixture
def cfg():
    cfg = get_cfg()
    cfg.INPUT.MIN_SIZE_TRAIN = (8,)
    cfg.INPUT.MIN_SIZE_TEST = 16
    cfg.INPUT.MASK_FORMAT = "bitmask"
    cfg.INPUT.RANDOM_FLIP = "none"
    cfg.MODEL.MASK_ON = True
    return cfg


@pytest.mark.parametrize(
    ("flip", "expected"),
    [("none", []), ("horizontal", [(True, False)]), ("vertical", [(False, True)])],
)
def test_augmentations_from_the_config(cfg, flip, expected):
    cfg.INPUT.RANDOM_FLIP = flip
    resize, *flips = utils.build_augmentation(cfg, is_train=True)
    assert isinstance(resize, T.ResizeShortestEdge)
    assert tuple(resize.short_edge_length) == (8,) and resize.max_size == 1333
    assert [(f.horizontal, f.vertical) for f in flips] == expected
    (resize,) = utils.build_augmentation(cfg, is_train=False)
    assert set(resize.short_edge_length) == {16}


def test_unknown_flip_in_the_config(cfg):
    cfg.INPUT.RANDOM_FLIP = "diagonal"
    with pytest.raises(ValueError):
        utils.build_augmentation(cfg, is_train=True)


def sample_of(rgb_file, tmp_path):
    labels = str(tmp_path / "labels.png")
    Image.fromarray(MASK).save(labels)
    return {
        "file_name": rgb_file,
        "height": 4,
        "width": 6,
        "image_id": 1,
        "sem_seg_file_name": labels,
        "annotations": [
            annotation(segmentation=RLE),
            annotation(iscrowd=1),
            annotation(bbox=[1, 1, 0, 3]),
            annotation(),
        ],
    }


def test_mapper_in_training(cfg, rgb_file, tmp_path):
    sample = sample_of(rgb_file, tmp_path)
    before = copy.deepcopy(sample)
    found = DatasetMapper(cfg, is_train=True)(sample)
    assert sample == before
    assert found["image"].shape == (3, 8, 12) and found["image"].dtype == torch.uint8
    corner = RGB[0, 0, ::-1].tolist()  # BGR
    assert found["image"][:, 0, 0].tolist() == corner
    assert found["sem_seg"].dtype == torch.int64
    doubled = MASK.repeat(2, axis=0).repeat(2, axis=1)
    assert (found["sem_seg"].numpy() == doubled).all()
    instances = found["instances"]  # without the crowd and the empty box
    assert instances.image_size == (8, 12) and len(instances) == 2
    assert (instances.gt_masks.tensor[0].numpy() == doubled).all()
    assert instances.gt_boxes.tensor.tolist() == [[2, 2, 10, 8]] * 2
    assert "annotations" not in found and "sem_seg_file_name" not in found
    assert found["image_id"] == 1 and found["width"] == 6


def test_mapper_without_masks(cfg, rgb_file, tmp_path):
    cfg.MODEL.MASK_ON = False
    found = DatasetMapper(cfg, is_train=True)(sample_of(rgb_file, tmp_path))
    assert set(found["instances"].get_fields()) == {"gt_boxes", "gt_classes"}


def test_mapper_in_inference(cfg, rgb_file, tmp_path):
    found = DatasetMapper(cfg, is_train=False)(sample_of(rgb_file, tmp_path))
    assert found["image"].shape == (3, 16, 24)
    assert "instances" not in found and "annotations" not in found


def test_mapper_crops_and_takes_boxes_from_masks(cfg, rgb_file, tmp_path):
    cfg.INPUT.CROP.ENABLED = True
    cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE = "absolute", [3, 3]
    cfg.INPUT.MIN_SIZE_TRAIN = (3,)
    np.random.seed(0)
    sample = sample_of(rgb_file, tmp_path)
    sample["annotations"] = [annotation(segmentation=RLE)]
    for _ in range(10):
        found = DatasetMapper(cfg, is_train=True)(sample)
        instances = found["instances"]
        assert found["image"].shape == (3, 3, 3)
        boxes = instances.gt_masks.get_bounding_boxes().tensor
        assert torch.equal(instances.gt_boxes.tensor, boxes)


def test_mapper_from_plain_arguments(rgb_file):
    mapper = DatasetMapper(True, augmentations=[T.HFlipTransform(6)], image_format="L")
    found = mapper({"file_name": rgb_file})
    assert found["image"].shape == (1, 4, 6) and (found["height"], found["width"]) == (4, 6)
    grey = utils.read_image(rgb_file, "L")[:, ::-1, 0]
    assert (found["image"][0].numpy() == grey).all()


def test_mapper_refuses_boxes_from_masks_that_it_does_not_read():
    with pytest.raises(REFUSED):
        DatasetMapper(True, augmentations=[], image_format="RGB", recompute_boxes=True)


def test_mapper_finds_a_wrong_size(rgb_file):
    mapper = DatasetMapper(True, augmentations=[], image_format="RGB")
    with pytest.raises(utils.SizeMismatchError):
        mapper({"file_name": rgb_file, "height": 5, "width": 6})


def make_files(folder, *names):
    folder.mkdir()
    for name in names:
        (folder / name).touch()
    return str(folder)


def test_labels_are_paired_with_images_by_name(tmp_path):
    images = make_files(tmp_path / "images", "b.jpg", "a.jpg", "only_image.jpg", "notes.txt")
    labels = make_files(tmp_path / "labels", "a.png", "b.png")
    found = load_sem_seg(labels, images)
    expected = [(f"{images}/{n}.jpg", f"{labels}/{n}.png") for n in ("a", "b")]
    assert [(s["file_name"], s["sem_seg_file_name"]) for s in found] == expected


def test_extensions_can_be_chosen(tmp_path):
    images = make_files(tmp_path / "images", "a.png", "b.png")
    labels = make_files(tmp_path / "labels", "a.tif", "b.tif")
    assert len(load_sem_seg(labels, images, gt_ext="tif", image_ext="png")) == 2


def test_directories_without_such_files_are_errors(tmp_path):
    images = make_files(tmp_path / "images", "a.jpg")
    labels = make_files(tmp_path / "labels", "a.bmp")
    with pytest.raises((AssertionError, FileNotFoundError), match="labels"):
        load_sem_seg(labels, images)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_sem_seg(str(tmp_path / "nowhere"), images)
