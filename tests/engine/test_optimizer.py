"""Parameter groups, schedule and clipping are the official ones."""

import json
from pathlib import Path

import pytest
import torch
from detectron2.projects.deeplab import build_lr_scheduler
from torch import nn

from mask2former.config import load_config
from mask2former.engine.optimizer import build_optimizer, parameter_settings
from mask2former.engine.trainer import Trainer

CITYSCAPES_R50 = "cityscapes/semantic-segmentation/maskformer2_R50_bs16_90k.yaml"
GOLDEN = Path(__file__).parents[1] / "goldens" / "optimizer_cityscapes_sem_r50.json"


@pytest.fixture(scope="module")
def golden():
    return json.loads(GOLDEN.read_text())


@pytest.fixture(scope="module")
def cfg():
    return load_config(CITYSCAPES_R50, ["MODEL.DEVICE", "cpu"])


@pytest.fixture(scope="module")
def model(cfg):
    return Trainer.build_model(cfg)


def test_each_parameter_has_the_official_settings(cfg, model, golden):
    expected = {
        name: tuple(map(float, settings.split()))
        for settings, names in golden["parameters"].items()
        for name in names
    }
    found = {
        name: (pytest.approx(lr), weight_decay)
        for name, _, lr, weight_decay in parameter_settings(cfg, model)
    }
    assert found == expected


def test_groups_hold_each_parameter_once_in_few_groups(cfg, model):
    optimizer = build_optimizer(cfg, model)
    grouped = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(optimizer.param_groups) == 4
    assert sorted(map(id, grouped)) == sorted(map(id, model.parameters()))


def test_schedule_is_the_official_one(cfg, model, golden):
    optimizer = build_optimizer(cfg, model)
    scheduler = build_lr_scheduler(cfg, optimizer)
    for iteration, expected in golden["first_group_lr"].items():
        scheduler.last_epoch = int(iteration)
        assert scheduler.get_lr()[0] == pytest.approx(expected, rel=1e-9)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Conv2d(3, 4, 1)
        self.norm = nn.LayerNorm(4)
        self.embedding = nn.Embedding(2, 4)
        self.relative_position_bias_table = nn.Parameter(torch.zeros(3))
        self.frozen = nn.Parameter(torch.zeros(3), requires_grad=False)
        self.tied = self.norm


def test_rules_by_kind_of_parameter():
    opts = ["SOLVER.WEIGHT_DECAY_NORM", "0.3", "SOLVER.WEIGHT_DECAY_EMBED", "0.2"]
    cfg = load_config(CITYSCAPES_R50, opts)
    found = {name: (lr, wd) for name, _, lr, wd in parameter_settings(cfg, Small())}
    assert found == {
        "relative_position_bias_table": (1e-4, 0.0),
        "backbone.weight": (pytest.approx(1e-5), 0.05),
        "backbone.bias": (pytest.approx(1e-5), 0.05),
        "norm.weight": (1e-4, 0.3),
        "norm.bias": (1e-4, 0.3),
        "embedding.weight": (1e-4, 0.2),
    }


def moved(clip_type, clip_value, gradients):
    """How far SGD with rate 1 moves two parameters that have these gradients."""
    opts = ["SOLVER.OPTIMIZER", "SGD", "SOLVER.BASE_LR", "1.0", "SOLVER.WEIGHT_DECAY", "0.0"]
    opts += ["SOLVER.CLIP_GRADIENTS.CLIP_TYPE", clip_type]
    opts += ["SOLVER.CLIP_GRADIENTS.CLIP_VALUE", str(clip_value)]
    model = nn.ParameterList([torch.zeros(()), torch.zeros(())])
    optimizer = build_optimizer(load_config(CITYSCAPES_R50, opts), model)
    for parameter, gradient in zip(model, gradients):
        parameter.grad = torch.tensor(gradient)
    optimizer.step()
    return [-p.item() for p in model]


def test_full_model_clipping_bounds_the_norm_over_all_parameters():
    assert moved("full_model", 1.0, [3.0, 4.0]) == pytest.approx([0.6, 0.8], rel=1e-5)
    assert moved("full_model", 10.0, [3.0, 4.0]) == [3.0, 4.0]


def test_other_clipping_is_detectron2s():
    assert moved("value", 1.0, [3.0, 0.5]) == [1.0, 0.5]
    assert moved("norm", 1.0, [3.0, 0.5]) == pytest.approx([1.0, 0.5], rel=1e-5)
