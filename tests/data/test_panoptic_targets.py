"""Targets of panoptic training: by hand, and what is wrong with files."""

import numpy as np
import pytest
import torch
from mapper_inputs import refuses, save_segments
from panopticapi.utils import id2rgb
from PIL import Image

from mask2former.data import build_mapper


@pytest.fixture
def cfg(cfg):
    cfg.INPUT.DATASET_MAPPER_NAME = "mask_former_panoptic"
    cfg.INPUT.MIN_SIZE_TRAIN = (40,)
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 5
    return cfg


def _quarters() -> tuple[np.ndarray, list[dict]]:
    """Four segments of 20 x 20 in a row; the last is nobody's."""
    ids = np.array([7, 300, 70000, 0]).repeat(20)[None].repeat(40, 0)
    segments = [
        {"id": 70000, "category_id": 4, "isthing": False, "iscrowd": 0},
        {"id": 7, "category_id": 2, "isthing": True},
        {"id": 300, "category_id": 2, "isthing": True, "iscrowd": 0},
    ]
    return ids, segments


def test_segments_become_targets_in_their_order(cfg, tmp_path):
    ids, segments = _quarters()
    sample = save_segments(tmp_path, ids, segments)
    mapped = build_mapper(cfg, True)(sample)
    instances = mapped["instances"]
    assert instances.gt_classes.tolist() == [4, 2, 2]
    assert instances.gt_classes.dtype == torch.int64 and instances.gt_masks.dtype == torch.bool
    assert (instances.gt_masks.numpy() == (ids == np.array([70000, 7, 300])[:, None, None])).all()
    assert mapped["segments_info"] == segments and "instances" not in sample


def test_crowds_and_what_is_not_listed_or_not_there(cfg, tmp_path):
    cfg.INPUT.DROP_EMPTY_MASKS = True
    ids, segments = _quarters()
    segments[1]["iscrowd"] = 1
    segments[2] = {"id": 301, "category_id": 1}  # the picture has no such; 300 is not listed
    instances = build_mapper(cfg, True)(save_segments(tmp_path, ids, segments))["instances"]
    assert instances.gt_classes.tolist() == [4]
    assert (instances.gt_masks[0].numpy() == (ids == 70000)).all()


def test_a_crop_may_leave_no_target(cfg, tmp_path):
    cfg.INPUT.DROP_EMPTY_MASKS = True
    ids = np.zeros((40, 200), int)
    ids[0, 0] = 9
    sample = save_segments(tmp_path, ids, [{"id": 9, "category_id": 1}])
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE = True, "absolute", (20, 20)
    np.random.seed(0)
    instances = build_mapper(cfg, True)(sample)["instances"]
    assert instances.gt_classes.shape == (0,) and instances.gt_masks.shape == (0, 20, 20)


@pytest.mark.parametrize("segments", [[], [{"id": 5, "category_id": 1, "iscrowd": 1}]])
def test_pictures_without_anything_to_learn(cfg, tmp_path, segments):
    ids = np.full((40, 40), 5)
    instances = build_mapper(cfg, True)(save_segments(tmp_path, ids, segments))["instances"]
    assert instances.gt_masks.shape == (0, 40, 40)


def test_more_segments_than_a_byte_counts(cfg, tmp_path):
    ids = 1 + np.arange(400).reshape(20, 20).repeat(2, 0).repeat(2, 1)
    segments = [{"id": i, "category_id": i % 5} for i in range(1, 401)]
    instances = build_mapper(cfg, True)(save_segments(tmp_path, ids, segments))["instances"]
    assert instances.gt_classes.tolist() == [i % 5 for i in range(1, 401)]
    assert (instances.gt_masks.sum((1, 2)) == 4).all()
    assert (instances.gt_masks.float().argmax(0).numpy() == ids - 1).all()


def test_a_crop_looks_at_the_classes_of_segments(cfg, tmp_path):
    """Crops of which one class covers more than 80 % are drawn again; nobody's do not count."""
    ids = np.ones((40, 80), int)
    ids[:, 60:], ids[:12] = 2, 0
    sample = save_segments(tmp_path, ids, [{"id": i, "category_id": i} for i in (1, 2)])
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE = True, "absolute", (20, 24)
    shares = {}
    for limit in (1.0, 0.8):
        cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA = limit
        mapper = build_mapper(cfg, True)
        np.random.seed(0)
        crops = [mapper(sample)["instances"].gt_masks.sum((1, 2)) for _ in range(50)]
        shares[limit] = np.mean([float(c.max() / c.sum()) > 0.8 for c in crops])
    assert shares[1.0] > 0.5 and shares[0.8] < 0.1


@pytest.mark.parametrize("mode", ["P", "RGBA"])
def test_ids_in_another_kind_of_png(cfg, tmp_path, mode):
    ids, segments = _quarters()
    sample = save_segments(tmp_path, ids, segments)
    expected = build_mapper(cfg, True)(sample)["instances"].gt_masks
    file = Image.fromarray(id2rgb(ids))
    file = file.quantize(4, dither=Image.Dither.NONE) if mode == "P" else file.convert(mode)
    file.save(sample["pan_seg_file_name"])
    assert Image.open(sample["pan_seg_file_name"]).mode == mode
    assert torch.equal(build_mapper(cfg, True)(sample)["instances"].gt_masks, expected)


def test_files_that_are_wrong(cfg, tmp_path):
    ids, segments = _quarters()
    sample = save_segments(tmp_path, ids, segments)
    path = sample["pan_seg_file_name"]
    wrong = {**sample, "pan_seg_file_name": "gone/segments.png"}
    refuses(cfg, wrong, "gone/segments.png: no such file")
    Image.fromarray((ids % 256).astype(np.uint8)).save(path)  # grey: not ids as colours
    refuses(cfg, sample, f"{path}: none of its 3 segments is in it", "65536")
    Image.fromarray(id2rgb(ids[:, :70])).save(path)
    refuses(cfg, sample, sample["file_name"], "40x80", "40x70", "another file")


@pytest.mark.parametrize(
    "change, words",
    [
        ({"category_id": 5}, ["segment 300", "category_id=5", "5 classes (0 to 4)", "NUM_CLASSES"]),
        ({"category_id": -1}, ["category_id=-1"]),
        ({"category_id": None}, ["category_id=None"]),
        ({"id": 0}, ["segment 0", "no segment"]),
        ({"id": 256**3}, ["segment 16777216", "up to 16777215"]),
    ],
)
def test_segments_that_are_wrong(cfg, tmp_path, change, words):
    ids, segments = _quarters()
    segments[2].update(change)
    refuses(cfg, save_segments(tmp_path, ids, segments), "segments.png", *words)
