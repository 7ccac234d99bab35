"""What travels says the same as the official form, in fewer bytes."""

import pickle
import random

import numpy as np
import pytest
import torch
from detectron2.structures import Instances
from mapper_inputs import made_sample, set_recipe
from torch.utils.data import DataLoader

from mask2former.data import build_mapper
from mask2former.data.compact import ground_truth, plain
from mask2former.data.dataset_mapper import RECIPES
from mask2former.layers.label_masks import LabelMasks
from mask2former.layers.run_length_masks import RunLengthMasks


def _map(cfg, sample, seed):
    np.random.seed(seed)
    random.seed(seed)
    return build_mapper(cfg, is_train=True)(sample)


def _same(a, b):
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, Instances):
        return a.image_size == b.image_size and _same(a.get_fields(), b.get_fields())
    if isinstance(a, dict):
        return list(a) == list(b) and all(_same(a[key], b[key]) for key in a)
    return a == b


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", RECIPES)
def test_both_forms_say_the_same(cfg, tmp_path, name, seed):
    set_recipe(cfg, name)
    sample = made_sample(tmp_path, seed)
    cfg.MODEL.META_ARCHITECTURE = "SemanticSegmentor"
    official = _map(cfg, sample, seed)
    assert official["instances"].gt_masks.dtype == torch.bool
    assert ("sem_seg" in official) == (name == "mask_former_semantic")
    cfg.MODEL.META_ARCHITECTURE = "MaskFormer"
    compact = _map(cfg, sample, seed)
    kind = RunLengthMasks if "instance" in name else LabelMasks
    assert isinstance(compact["instances"].gt_masks, kind)
    assert compact["padded_size"] == official["image"].shape[1:] == official["instances"].image_size
    before = pickle.dumps(compact)
    assert _same(plain(compact), official)
    assert pickle.dumps(compact) == before
    # Pictures that are not padded and have few objects gain least.
    assert len(before) < len(pickle.dumps(official)) * (1 / 4 if "sem_seg" in official else 2 / 3)


def _by_hand(**entries):
    labels = torch.tensor([[2, 0, 1], [2, 9, 1]], dtype=torch.uint8)
    masks = LabelMasks(labels, torch.tensor([1, 2], dtype=torch.uint8), (3, 4))
    image = torch.arange(18, dtype=torch.uint8).view(2, 3, 3).permute(2, 0, 1)  # (3,2,3)
    instances = ground_truth(torch.tensor([7, 4]), masks)
    return {"image": image, "padded_size": (3, 4), "instances": instances, **entries}


def test_the_official_form_by_hand():
    given = _by_hand(ignore_value=255, file_name="a.png")
    sample = plain(given)
    assert list(sample) == ["image", "instances", "file_name", "sem_seg"]
    assert sample["image"].is_contiguous() and sample["image"].shape == (3, 3, 4)
    assert torch.equal(sample["image"][:, :2, :3], given["image"])
    assert (sample["image"][:, 2:] == 128).all() and (sample["image"][:, :, 3:] == 128).all()
    expected = [[4, 255, 7, 255], [4, 255, 7, 255], [255] * 4]
    assert sample["sem_seg"].dtype == torch.int64 and sample["sem_seg"].tolist() == expected
    assert sample["instances"].gt_classes.tolist() == [7, 4]
    assert sample["instances"].gt_masks.int().tolist() == [
        [[0, 0, 1, 0], [0, 0, 1, 0], [0] * 4],
        [[1, 0, 0, 0], [1, 0, 0, 0], [0] * 4],
    ]
    assert "sem_seg" not in plain(_by_hand())


def test_nothing_to_learn_in_the_official_form():
    empty = LabelMasks(torch.zeros(2, 3).byte(), torch.zeros(0).byte(), (3, 4))
    instances = ground_truth(torch.zeros(0).long(), empty)
    sample = plain(_by_hand(ignore_value=99, instances=instances))
    assert sample["sem_seg"].tolist() == [[99] * 4] * 3
    assert sample["instances"].gt_masks.shape == (0, 3, 4)


def test_samples_for_testing_are_as_they_are():
    sample = {"image": torch.zeros(3, 4, 5).byte(), "file_name": "a.png"}
    assert _same(plain(sample), sample)


@pytest.mark.parametrize("name", ["mask_former_semantic", "coco_instance_lsj"])
def test_workers_send_it(cfg, tmp_path, name):
    set_recipe(cfg, name)
    cfg.MODEL.META_ARCHITECTURE = "MaskFormer"
    sample = _map(cfg, made_sample(tmp_path, 0), 0)
    (received,) = DataLoader([sample], batch_size=None, num_workers=1)
    assert _same(plain(received), plain(sample))


def test_each_part_is_pinned(monkeypatch):
    """What a DataLoader's thread does with a device that copies while the host goes on."""
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda t: pinned.append(t) or t.clone())
    labels = _by_hand()["instances"]
    runs = ground_truth(
        torch.tensor([3]), RunLengthMasks.from_counts([np.array([2, 3, 1])], (2, 3), (3, 4))
    )
    for instances in (labels, runs):
        pinned.clear()
        moved = instances.pin_memory()
        masks = instances.gt_masks
        parts = [masks.runs] if instances is runs else [masks.labels, masks.values]
        assert {id(t) for t in pinned} == {id(t) for t in (instances.gt_classes, *parts)}
        assert moved.gt_masks.tensor.equal(masks.tensor) and moved.image_size == (3, 4)
