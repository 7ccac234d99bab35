"""The six recipes against what the official mappers made of the same pictures and random numbers.

tests/goldens/dataset_mappers.json: for `made_sample(folder, seed)`, seeds 0 to 5, what came out,
without the empty masks that some of the official mappers keep.
"""

import json
import pickle
import random
import zlib
from pathlib import Path

import numpy as np
import pytest
from mapper_inputs import made_sample, set_recipe

import mask2former
from mask2former.data import MaskFormerDatasetMapper, build_mapper
from mask2former.data.dataset_mapper import RECIPES

GOLDENS = json.loads((Path(__file__).parents[1] / "goldens" / "dataset_mappers.json").read_text())

OFFICIAL = {
    "MaskFormerSemanticDatasetMapper": "mask_former_semantic",
    "MaskFormerInstanceDatasetMapper": "mask_former_instance",
    "MaskFormerPanopticDatasetMapper": "mask_former_panoptic",
    "COCOInstanceNewBaselineDatasetMapper": "coco_instance_lsj",
    "COCOPanopticNewBaselineDatasetMapper": "coco_panoptic_lsj",
    "DETRPanopticDatasetMapper": "detr_panoptic",
}


def _map(mapper: MaskFormerDatasetMapper, sample: dict, seed: int) -> dict:
    np.random.seed(seed)
    random.seed(seed)  # SSD's colours
    return mapper(sample)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", GOLDENS)
def test_pixels_and_targets_are_the_official_ones(cfg, tmp_path, name, seed):
    set_recipe(cfg, name)
    cfg.INPUT.DROP_EMPTY_MASKS = True
    mapped = _map(build_mapper(cfg, is_train=True), made_sample(tmp_path, seed), seed)
    expected = GOLDENS[name][seed]
    instances = mapped["instances"]
    assert list(mapped["image"].shape) == expected["shape"]
    # Within what builds of OpenCV differ by in converting colours.
    means = [float(channel.double().mean()) for channel in mapped["image"]]
    assert means == pytest.approx(expected["channel_means"], abs=0.01)
    assert instances.gt_classes.tolist() == expected["classes"]
    assert instances.gt_masks.sum((1, 2)).tolist() == expected["areas"]
    assert zlib.crc32(np.packbits(instances.gt_masks.numpy()).tobytes()) == expected["masks"]
    assert np.random.rand() == expected["next_random_number"]


@pytest.mark.parametrize("name", [n for n in GOLDENS if n != "mask_former_semantic"])
def test_what_a_crop_cuts_away_stays_an_empty_target(cfg, tmp_path, name):
    """As in the official mappers, of which only coco_instance_lsj drops it."""
    set_recipe(cfg, name)
    for seed in range(6):
        sample = made_sample(tmp_path, seed)
        instances = _map(build_mapper(cfg, is_train=True), sample, seed)["instances"]
        seen = instances.gt_masks.flatten(1).any(1)
        assert instances.gt_classes[seen].tolist() == GOLDENS[name][seed]["classes"]
        objects = sample["annotations" if "instance" in name else "segments_info"]
        learned = [entry["category_id"] for entry in objects if not entry.get("iscrowd")]
        if name == "coco_instance_lsj":
            assert seen.all()
        else:
            assert instances.gt_classes.tolist() == learned


def test_all_recipes_are_held_against_official_ones():
    assert set(GOLDENS) == set(RECIPES) == set(OFFICIAL.values())


@pytest.mark.parametrize("alias, name", OFFICIAL.items())
def test_official_classes_keep_to_their_recipe(cfg, tmp_path, alias, name):
    set_recipe(cfg, name)
    sample = made_sample(tmp_path, 1)
    expected = _map(build_mapper(cfg, True), sample, 4)
    cfg.INPUT.DATASET_MAPPER_NAME = "something else"
    mapper = getattr(mask2former, alias)(cfg, True)
    mapper = pickle.loads(pickle.dumps(mapper))  # as a spawned worker gets it
    mapped = _map(mapper, sample, 4)
    assert (mapped["image"] == expected["image"]).all()
    assert (mapped["instances"].gt_masks == expected["instances"].gt_masks).all()
    assert type(mapper).__name__ == alias
    cfg.INPUT.MIN_SIZE_TEST = 50
    assert min(getattr(mask2former, alias)(cfg, False)(sample)["image"].shape[1:]) == 50


@pytest.mark.parametrize("name", RECIPES)
def test_testing_does_not_depend_on_the_recipe(cfg, tmp_path, name):
    sample = made_sample(tmp_path, 0)
    plain = build_mapper(cfg, is_train=False)(sample)
    set_recipe(cfg, name)
    mapped = build_mapper(cfg, is_train=False)(sample)
    assert (mapped["image"] == plain["image"]).all()
    assert "instances" not in mapped and "annotations" not in mapped
    assert mapped["pan_seg_file_name"] == sample["pan_seg_file_name"]  # for evaluators
