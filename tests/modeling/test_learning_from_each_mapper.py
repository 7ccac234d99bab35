"""A tiny model takes a few steps on what the loader gives, with each recipe and kind of dataset."""

import os

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from tiny_model import tiny_config

from mask2former.data import build_mapper, build_train_loader
from mask2former.data.compact import plain
from mask2former.data.dataset_mapper import RECIPES
from mask2former.data.datasets import register_all
from mask2former.data.mini.cityscapes import ensure_mini_cityscapes
from mask2former.data.mini.maker import MiniSpec

KINDS = {
    "semantic": ("mini_cityscapes_fine_sem_seg_train", 19),
    "instance": ("mini_cityscapes_fine_instance_seg_train", 8),
    "panoptic": ("mini_cityscapes_fine_panoptic_train", 19),
}


@pytest.fixture(scope="module", autouse=True)
def _streets(tmp_path_factory):
    root = tmp_path_factory.mktemp("datasets")
    spec = MiniSpec(height=64, width=128, num_train=4, num_val=1)
    ensure_mini_cityscapes(root / "mini_cityscapes", spec, show_progress=False)
    register_all(str(root))
    yield
    register_all(os.getenv("DETECTRON2_DATASETS", "datasets"))


def _config(name: str):
    dataset, num_classes = next(value for kind, value in KINDS.items() if kind in name)
    crop = (40, 80) if name == "detr_panoptic" else (48, 48)
    return tiny_config(
        *("DATASETS.TRAIN", (dataset,)),
        *("MODEL.SEM_SEG_HEAD.NUM_CLASSES", num_classes),
        *("MODEL.MASK_FORMER.DEC_LAYERS", 2),
        *("INPUT.DATASET_MAPPER_NAME", name),
        *("INPUT.FORMAT", "RGB"),
        *("INPUT.MIN_SIZE_TRAIN", (48, 64)),
        *("INPUT.IMAGE_SIZE", 64),
        *("INPUT.CROP.ENABLED", True),
        *("INPUT.CROP.TYPE", "absolute_range" if name == "detr_panoptic" else "absolute"),
        *("INPUT.CROP.SIZE", crop),
        *("SOLVER.IMS_PER_BATCH", 2),
        *("DATALOADER.NUM_WORKERS", 0),
    )


@pytest.mark.parametrize("name", RECIPES)
def test_the_loss_falls(name):
    cfg = _config(name)
    torch.manual_seed(0)
    model = build_model(cfg).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    batch = next(iter(build_train_loader(cfg, seed=1)))
    totals = []
    for _ in range(4):
        losses = model(batch)
        total = sum(losses.values())
        assert total.isfinite(), losses
        totals.append(total.item())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert totals[-1] < 0.9 * totals[0], totals


@pytest.mark.parametrize("name", RECIPES)
def test_losses_are_those_of_the_official_form(name):
    cfg = _config(name)
    model = build_model(cfg).train()
    batch = next(iter(build_train_loader(cfg, seed=2)))
    losses = model(batch)
    official = [plain(sample) for sample in batch]
    for sample in official:
        assert sample["image"].shape[1:] == sample["instances"].gt_masks.shape[1:]
    expected = model(official)
    assert losses.keys() == expected.keys()
    assert all(torch.equal(losses[key], expected[key]) for key in losses), (losses, expected)


@pytest.mark.parametrize(
    "name, key",
    [("mask_former_instance", "annotations"), ("mask_former_panoptic", "segments_info")],
)
def test_a_batch_of_crops_without_targets(name, key):
    cfg = _config(name)
    cfg.INPUT.DROP_EMPTY_MASKS = True
    mapper = build_mapper(cfg, is_train=True)
    sample = build_train_loader(cfg).loader.dataset.dicts[0]
    sample[key] = sample[key][-1:]
    np.random.seed(0)
    crops = [mapper(sample) for _ in range(30)]
    batch = [{**crop, "seed": 1} for crop in crops if len(crop["instances"]) == 0][:2]
    assert len(batch) == 2
    losses = build_model(cfg).train()(batch)
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert losses["loss_ce"] > 0 and losses["loss_mask"] == losses["loss_dice"] == 0
