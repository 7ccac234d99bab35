"""The peer of the benchmark of loading gives what the official mappers give, and what ours does."""

import json
import random
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.plain_mapper import MAPPERS, build_plain_mapper
from detectron2.config import get_cfg

from mask2former.config import add_maskformer2_config
from mask2former.data import build_mapper

TESTS = Path(__file__).parents[1]
GOLDENS = json.loads((TESTS / "goldens" / "dataset_mappers.json").read_text())

sys.path.insert(0, str(TESTS / "data"))
from mapper_inputs import made_sample, set_recipe  # noqa: E402


def draw(seed):
    np.random.seed(seed)
    random.seed(seed)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", MAPPERS)
def test_it_is_the_official_one(tmp_path, name, seed):
    cfg = get_cfg()
    add_maskformer2_config(cfg)
    set_recipe(cfg, name)
    sample = made_sample(tmp_path, seed)
    draw(seed)
    mapped = build_plain_mapper(cfg)(sample)
    expected = GOLDENS[name][seed]
    assert np.random.rand() == expected["next_random_number"]
    image, instances = mapped["image"], mapped["instances"]
    assert list(image.shape) == expected["shape"]
    means = [float(channel.double().mean()) for channel in image]
    assert means == pytest.approx(expected["channel_means"], abs=0.01)
    seen = instances.gt_masks.flatten(1).any(1)
    assert instances.gt_classes[seen].tolist() == expected["classes"]
    masks = instances.gt_masks[seen]
    assert masks.sum((1, 2)).tolist() == expected["areas"]
    assert zlib.crc32(np.packbits(masks.numpy()).tobytes()) == expected["masks"]

    draw(seed)
    ours = build_mapper(cfg, is_train=True)(sample)
    assert torch.equal(ours["instances"].gt_classes, instances.gt_classes)
    assert torch.equal(ours["instances"].gt_masks, instances.gt_masks)
    assert ("sem_seg" in ours) == ("sem_seg" in mapped)
    assert torch.equal(ours.get("sem_seg", masks), mapped.get("sem_seg", masks))


def test_other_mappers_have_no_peer():
    cfg = get_cfg()
    add_maskformer2_config(cfg)
    cfg.INPUT.DATASET_MAPPER_NAME = "detr_panoptic"
    assert build_plain_mapper(cfg) is None
