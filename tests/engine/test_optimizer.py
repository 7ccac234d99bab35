"""Parameter groups, schedule and clipping are the official ones."""

import copy
import json
from pathlib import Path

import pytest
import torch
from detectron2.projects.deeplab import build_lr_scheduler
from torch import nn

from mask2former import device as devices
from mask2former.config import load_config
from mask2former.engine.optimizer import build_optimizer, gradient_norm, parameter_settings
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


def test_a_norm_that_is_known_is_not_counted_again(monkeypatch):
    cfg = load_config(CITYSCAPES_R50, ["SOLVER.CLIP_GRADIENTS.CLIP_VALUE", "1.0"])
    model = nn.ParameterList([torch.zeros(2)])
    optimizer = build_optimizer(cfg, model)
    counted = []
    monkeypatch.setattr(torch, "_foreach_norm", lambda *args: counted.append(args))
    model[0].grad = torch.tensor([30.0, 40.0])
    optimizer.known_norm = torch.tensor(50.0)
    optimizer.step()
    assert counted == []
    torch.testing.assert_close(model[0].grad, torch.tensor([0.6, 0.8]))
    monkeypatch.undo()
    model[0].grad = torch.tensor([3.0, 4.0])  # of another step, of which it knows nothing
    optimizer.step()
    torch.testing.assert_close(model[0].grad, torch.tensor([0.6, 0.8]))


@pytest.mark.parametrize("norm_type", [1.0, 2.0, float("inf")])
def test_norms_are_torchs(norm_type):
    torch.manual_seed(0)
    model = nn.ParameterList([torch.zeros(4, 3), torch.zeros(5), torch.zeros(2)])
    model[0].grad, model[1].grad = torch.randn(4, 3), torch.randn(5)
    found = gradient_norm(model, norm_type)
    expected = nn.utils.clip_grad_norm_(model, 1e9, norm_type)
    torch.testing.assert_close(found, expected)


KINDS = {
    "ADAMW": lambda model: torch.optim.AdamW(model.parameters(), 0.1, weight_decay=0.05),
    "SGD": lambda model: torch.optim.SGD(
        model.parameters(), 0.1, momentum=0.9, weight_decay=0.05, nesterov=True
    ),
}


def optimized(model, kind, *overrides):
    """Our optimizer with the settings of the one in KINDS."""
    opts = ["SOLVER.OPTIMIZER", kind, "SOLVER.BASE_LR", "0.1", "SOLVER.NESTEROV", "True"]
    return build_optimizer(load_config(CITYSCAPES_R50, [*opts, *overrides]), model)


def give_gradients(seed, *models):
    """The same gradients, below the bound of clipping."""
    torch.manual_seed(seed)
    for parameters in zip(*(m.parameters() for m in models)):
        gradient = 1e-4 * torch.randn_like(parameters[0])
        for parameter in parameters:
            parameter.grad = gradient.clone()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kind", KINDS)
def test_steps_are_those_of_torchs_plain_optimizer(kind, layout):
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3))
    plain = copy.deepcopy(ours)
    optimizers = optimized(ours, kind), KINDS[kind](plain)
    assert optimizers[0].param_groups[0]["fused"] and not optimizers[1].param_groups[0]["fused"]
    for seed in range(3):
        give_gradients(seed, ours, plain)
        for parameter in ours.parameters():  # a gradient need not lie as its parameter does
            if parameter.dim() == 4:
                parameter.grad = parameter.grad.contiguous(memory_format=layout)
        for optimizer in optimizers:
            optimizer.step()
    for found, expected in zip(ours.parameters(), plain.parameters()):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("saved_fused", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_state_resumes_whichever_way_it_was_computed(kind, saved_fused, monkeypatch):
    """Of checkpoints from before there were fused optimizers, and of those of another device."""
    torch.manual_seed(0)
    model = nn.Conv2d(3, 4, 3)

    def build(module, fused):
        entry = devices.Accelerator("cpu", fused_optimizers=fused)
        with monkeypatch.context() as patch:
            patch.setattr(devices, "ACCELERATORS", [entry])
            return optimized(module, kind)

    one = build(model, saved_fused)
    give_gradients(0, model)
    one.step()
    state = copy.deepcopy(one.state_dict())
    if not saved_fused:
        for group in state["param_groups"]:
            del group["fused"], group["foreach"]  # as older versions of torch have it
    twin = copy.deepcopy(model)
    other = build(twin, not saved_fused)
    other.load_state_dict(state)
    assert [bool(g["fused"]) for g in other.param_groups] == [not saved_fused]
    give_gradients(1, model, twin)
    one.step()
    other.step()
    for found, expected in zip(twin.parameters(), model.parameters()):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_scaler_leaves_out_what_is_not_finite(kind):
    model = nn.Conv2d(3, 4, 3)
    optimizer = optimized(model, kind)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    before = copy.deepcopy(model.state_dict())
    for value, is_taken in ((float("inf"), False), (1.0, True)):
        scaler.scale(model(torch.ones(1, 3, 3, 3)).sum()).backward()
        model.bias.grad[0] *= value
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        assert torch.equal(model.weight, before["weight"]) is not is_taken
        optimizer.zero_grad()
    assert scaler.get_scale() == 2.0
    assert all(p.isfinite().all() for p in model.parameters())


def test_devices_of_which_nobody_knows_get_torchs_choice():
    assert devices.has_fused_optimizers("cpu") and devices.has_fused_optimizers("cuda")
    assert not devices.has_fused_optimizers("sdaa") and not devices.has_fused_optimizers("xpu")
