"""detectron2.solver and DeepLab's schedule: groups, clipping and learning rates."""

import math

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.layers import FrozenBatchNorm2d, NaiveSyncBatchNorm
from detectron2.projects.deeplab import add_deeplab_config
from detectron2.projects.deeplab import build_lr_scheduler as build_deeplab_lr_scheduler
from detectron2.projects.deeplab.lr_scheduler import WarmupPolyLR
from detectron2.solver import (
    LRMultiplier,
    WarmupCosineLR,
    WarmupMultiStepLR,
    WarmupParamScheduler,
    build_lr_scheduler,
    build_optimizer,
    get_default_optimizer_params,
)
from detectron2.solver.build import (
    GradientClipType,
    maybe_add_gradient_clipping,
    reduce_param_groups,
)
from fvcore.common.param_scheduler import ConstantParamScheduler, LinearParamScheduler
from torch import nn

# Warm-up and training end before the schedule does: torch then asks for one step more.
pytestmark = pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")


class Net(nn.Module):
    """Every kind of parameter that is told apart."""

    def __init__(self):
        super().__init__()
        self.position = nn.Parameter(torch.zeros(2))
        self.conv = nn.Conv2d(3, 4, 1)
        self.bn = nn.BatchNorm2d(4)
        self.sync = NaiveSyncBatchNorm(4)
        self.gn = nn.GroupNorm(2, 4)
        self.ln = nn.LayerNorm(4)
        self.frozen_bn = FrozenBatchNorm2d(4)
        self.embedding = nn.Embedding(3, 4)
        self.linear = nn.Linear(4, 4)
        self.linear.bias.requires_grad = False
        self.tied = nn.Linear(4, 4, bias=False)
        self.tied.weight = self.linear.weight


NORMS = [f"{norm}.{name}" for norm in ("bn", "sync", "gn", "ln") for name in ("weight", "bias")]


def named_groups(model: nn.Module, groups: list[dict]) -> list[tuple[dict, list[str]]]:
    names = {id(p): name for name, p in model.named_parameters()}
    return [
        (
            {key: value for key, value in group.items() if key in ("lr", "weight_decay")},
            [names[id(p)] for p in group["params"]],
        )
        for group in groups
    ]


def groups_of(**options) -> list[tuple[dict, list[str]]]:
    model = Net()
    return named_groups(model, get_default_optimizer_params(model, **options))


def test_every_trained_parameter_is_there_once():
    [(options, names)] = groups_of()
    assert options == {}
    assert names == [
        "position",
        "conv.weight",
        "conv.bias",
        *NORMS,
        "embedding.weight",
        "linear.weight",
    ]


def test_norms_have_their_own_weight_decay():
    others, norms = groups_of(base_lr=0.1, weight_decay=1e-4, weight_decay_norm=0.0)
    assert norms == ({"lr": 0.1, "weight_decay": 0.0}, NORMS)
    assert others[0] == {"lr": 0.1, "weight_decay": 1e-4}
    assert "embedding.weight" in others[1] and not set(NORMS) & set(others[1])


def test_biases_win_over_norms():
    groups = groups_of(
        base_lr=0.1,
        weight_decay=1.0,
        weight_decay_norm=0.25,
        bias_lr_factor=2.0,
        weight_decay_bias=0.5,
    )
    assert [options for options, _ in groups] == [
        {"lr": 0.1, "weight_decay": 1.0},
        {"lr": 0.2, "weight_decay": 0.5},
        {"lr": 0.1, "weight_decay": 0.25},
    ]
    assert groups[1][1] == ["conv.bias", "bn.bias", "sync.bias", "gn.bias", "ln.bias"]
    assert groups[2][1] == ["bn.weight", "sync.weight", "gn.weight", "ln.weight"]


def test_overrides_go_by_the_last_part_of_the_name():
    groups = groups_of(base_lr=0.1, overrides={"position": {"lr": 3.0, "weight_decay": 4.0}})
    assert groups[0] == ({"lr": 3.0, "weight_decay": 4.0}, ["position"])
    assert groups[1][0] == {"lr": 0.1}


def test_lr_factor_goes_by_the_whole_name():
    groups = groups_of(base_lr=0.1, lr_factor_func=lambda n: 0.5 if n.startswith("conv.") else 1)
    assert ({"lr": 0.05}, ["conv.weight", "conv.bias"]) in groups


@pytest.mark.parametrize(
    "options",
    [
        {"bias_lr_factor": 2.0},
        {"lr_factor_func": lambda name: 0.5},
        {"weight_decay_bias": 0.1, "overrides": {"bias": {"lr": 1.0}}},
    ],
)
def test_contradicting_options_are_refused(options):
    with pytest.raises(ValueError, match=r"base_lr|bias"):
        groups_of(**options)


def test_equal_groups_are_joined():
    a, b, c, d, e = (torch.zeros(1) for _ in range(5))
    groups = reduce_param_groups(
        [
            {"params": [a], "lr": 1.0},
            {"params": [b], "lr": 2.0},
            {"params": [c], "lr": 1.0},
            {"params": [d], "lr": 1.0, "weight_decay": 0.1},
            {"params": [e], "lr": 2.0},
        ]
    )
    assert [group["lr"] for group in groups] == [1.0, 2.0, 1.0]
    assert [[id(p) for p in group["params"]] for group in groups] == [
        [id(a), id(c)],
        [id(b), id(e)],
        [id(d)],
    ]


def test_build_optimizer():
    cfg = get_cfg()
    cfg.merge_from_list(
        ["SOLVER.BASE_LR", 0.5, "SOLVER.BIAS_LR_FACTOR", 2.0, "SOLVER.WEIGHT_DECAY_NORM", 0.25]
    )
    cfg.merge_from_list(["SOLVER.WEIGHT_DECAY", 0.125, "SOLVER.NESTEROV", True])
    model = Net()
    optimizer = build_optimizer(cfg, model)
    assert type(optimizer) is torch.optim.SGD
    assert optimizer.defaults["momentum"] == 0.9 and optimizer.defaults["nesterov"]
    assert [options for options, _ in named_groups(model, optimizer.param_groups)] == [
        {"lr": 0.5, "weight_decay": 0.125},
        {"lr": 1.0, "weight_decay": 0.125},
        {"lr": 0.5, "weight_decay": 0.25},
        {"lr": 1.0, "weight_decay": 0.25},
    ]


def clipping_config(clip_type: str, norm_type: float = 2.0):
    cfg = get_cfg()
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = clip_type
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 0.5
    cfg.SOLVER.CLIP_GRADIENTS.NORM_TYPE = norm_type
    return cfg


@pytest.mark.parametrize(
    ("clip_type", "norm_type", "want"),
    [
        ("value", 2.0, [[0.5, -0.5], [0.1, 0.2]]),
        ("norm", 2.0, [[0.3, -0.4], [0.1, 0.2]]),
        ("norm", math.inf, [[0.375, -0.5], [0.1, 0.2]]),
    ],
)
@pytest.mark.parametrize("as_class", [True, False])
def test_each_parameter_is_clipped_by_itself(clip_type, norm_type, want, as_class):
    cfg = clipping_config(clip_type, norm_type)
    parameters = [nn.Parameter(torch.zeros(2)) for _ in want]
    if as_class:
        clipped_class = maybe_add_gradient_clipping(cfg, torch.optim.SGD)
        assert issubclass(clipped_class, torch.optim.SGD)
        optimizer = clipped_class(parameters, lr=1.0)
    else:
        optimizer = torch.optim.SGD(parameters, lr=1.0)
        assert maybe_add_gradient_clipping(cfg, optimizer) is optimizer
    parameters[0].grad = torch.tensor([3.0, -4.0])
    parameters[1].grad = torch.tensor([0.1, 0.2])
    optimizer.step()
    torch.testing.assert_close(torch.stack(parameters).detach(), -torch.tensor(want))


def test_clipping_by_norm_passes_over_parameters_without_gradient():
    parameters = [nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))]
    optimizer = maybe_add_gradient_clipping(clipping_config("norm"), torch.optim.AdamW)(
        parameters, lr=1.0
    )
    parameters[0].grad = torch.ones(1)
    optimizer.step()
    assert parameters[1].item() == 0 and parameters[0].item() < 0


def test_clipping_is_by_choice():
    assert maybe_add_gradient_clipping(get_cfg(), torch.optim.SGD) is torch.optim.SGD
    assert [kind.value for kind in GradientClipType] == ["value", "norm"]
    with pytest.raises(ValueError, match="sideways"):
        maybe_add_gradient_clipping(clipping_config("sideways"), torch.optim.SGD)


def curve(scheduler, num_steps: int) -> list[float]:
    """Learning rates of the last group at iterations 0 ... num_steps - 1."""
    rates = []
    for _ in range(num_steps):
        rates.append(scheduler.optimizer.param_groups[-1]["lr"])
        scheduler.optimizer.step()
        scheduler.step()
    return rates


def new_optimizer(lr: float = 0.1) -> torch.optim.Optimizer:
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in (lr, 2 * lr)]
    return torch.optim.SGD(groups, lr=lr)


def schedule(*options, build=build_lr_scheduler):
    cfg = get_cfg()
    add_deeplab_config(cfg)
    cfg.SOLVER.MAX_ITER = 20
    cfg.SOLVER.STEPS = (10, 15)
    cfg.SOLVER.WARMUP_ITERS = 4
    cfg.SOLVER.WARMUP_FACTOR = 0.1
    cfg.SOLVER.BASE_LR = 0.1
    cfg.merge_from_list(list(options))
    return build(cfg, new_optimizer(cfg.SOLVER.BASE_LR))


def steps(i: int) -> float:
    return 0.1 ** ((i >= 10) + (i >= 15))


def cosine(i: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * i / 20))


def poly(i: int) -> float:
    return (1 - i / 20) ** 0.9


def warm(i: int) -> float:
    return 1 if i >= 4 else 0.1 + 0.9 * i / 4


def test_multi_step():
    want = [0.2 * warm(i) * steps(i) for i in range(20)]
    assert curve(schedule(), 20) == pytest.approx(want)
    assert curve(schedule("SOLVER.STEPS", (10, 15, 99)), 20) == pytest.approx(want)


def test_constant_and_no_warmup():
    want = [0.2 * (0.1 if i < 4 else 1) * steps(i) for i in range(20)]
    assert curve(schedule("SOLVER.WARMUP_METHOD", "constant"), 20) == pytest.approx(want)
    want = [0.2 * steps(i) for i in range(20)]
    assert curve(schedule("SOLVER.WARMUP_ITERS", 0), 20) == pytest.approx(want)


def test_cosine_after_a_warmup_to_where_it_takes_over():
    # the ramp ends at the schedule's value there: it is not the product of the two
    start, end = 0.1, cosine(4)
    want = [0.2 * (start + (end - start) * i / 4 if i < 4 else cosine(i)) for i in range(20)]
    assert curve(schedule("SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR"), 20) == pytest.approx(want)


def test_cosine_down_to_a_base():
    scheduler = schedule("SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR", "SOLVER.BASE_LR_END", 0.025)
    want = [0.2 * (0.25 + 0.75 * cosine(i)) for i in range(4, 20)]
    assert curve(scheduler, 20)[4:] == pytest.approx(want)


def test_rescaled_interval():
    scheduler = schedule(
        "SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR", "SOLVER.RESCALE_INTERVAL", True
    )
    want = [0.2 * (warm(i) if i < 4 else cosine((i - 4) * 20 / 16)) for i in range(20)]
    assert curve(scheduler, 20) == pytest.approx(want)


def test_steps_at_equal_distances():
    scheduler = schedule(
        "SOLVER.LR_SCHEDULER_NAME", "WarmupStepWithFixedGammaLR", "SOLVER.NUM_DECAYS", 3
    )
    assert curve(scheduler, 19)[4:] == pytest.approx([0.2 * 0.1 ** (i // 5) for i in range(4, 19)])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("SOLVER.LR_SCHEDULER_NAME", "Sawtooth"), "Sawtooth"),
        (("SOLVER.WARMUP_METHOD", "slow"), "slow"),
        (("SOLVER.LR_SCHEDULER_NAME", "WarmupPolyLR"), "WarmupPolyLR"),
    ],
)
def test_unknown_schedules_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        schedule(*options)


def test_poly_of_deeplab():
    name = ("SOLVER.LR_SCHEDULER_NAME", "WarmupPolyLR")
    scheduler = schedule(*name, build=build_deeplab_lr_scheduler)
    assert type(scheduler) is WarmupPolyLR
    assert curve(scheduler, 20) == pytest.approx([0.2 * warm(i) * poly(i) for i in range(20)])

    options = ("SOLVER.POLY_LR_POWER", 2.0, "SOLVER.POLY_LR_CONSTANT_ENDING", 0.3)
    scheduler = schedule(*name, *options, build=build_deeplab_lr_scheduler)
    want = [0.2 * warm(i) * (1 - i / 20) ** 2 for i in range(20)]
    want[4:] = [max(rate, 0.06) for rate in want[4:]]
    assert curve(scheduler, 20) == pytest.approx(want)


def test_deeplab_knows_the_other_schedules():
    scheduler = schedule(build=build_deeplab_lr_scheduler)
    assert type(scheduler) is LRMultiplier
    assert curve(scheduler, 20) == pytest.approx([0.2 * warm(i) * steps(i) for i in range(20)])


def test_older_schedules():
    scheduler = WarmupMultiStepLR(new_optimizer(), [10, 15], warmup_factor=0.1, warmup_iters=4)
    assert curve(scheduler, 20) == pytest.approx([0.2 * warm(i) * steps(i) for i in range(20)])
    scheduler = WarmupCosineLR(new_optimizer(), 20, warmup_factor=0.1, warmup_iters=4)
    assert curve(scheduler, 20) == pytest.approx([0.2 * warm(i) * cosine(i) for i in range(20)])
    with pytest.raises(ValueError, match="15, 10"):
        WarmupMultiStepLR(new_optimizer(), [15, 10])


@pytest.mark.parametrize("name", ["WarmupMultiStepLR", "WarmupPolyLR"])
def test_schedule_resumes_from_its_state(name):
    def new():
        return schedule("SOLVER.LR_SCHEDULER_NAME", name, build=build_deeplab_lr_scheduler)

    whole = curve(new(), 20)
    first = new()
    curve(first, 7)
    second = new()
    second.load_state_dict(first.state_dict())
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    assert second.last_epoch == 7
    assert curve(second, 13) == pytest.approx(whole[7:])


def test_multiplier():
    scheduler = LRMultiplier(new_optimizer(), LinearParamScheduler(1, 0), max_iter=10)
    assert scheduler.state_dict() == {"base_lrs": [0.1, 0.2], "last_epoch": 0}
    assert curve(scheduler, 10) == pytest.approx([0.2 * (1 - i / 10) for i in range(10)])
    with pytest.raises(ValueError, match="ParamScheduler"):
        LRMultiplier(new_optimizer(), lambda where: where, max_iter=10)


def test_warmup_is_a_function_of_progress():
    warmup = WarmupParamScheduler(ConstantParamScheduler(2.0), 0.1, 0.5)
    assert [warmup(where) for where in (0.0, 0.25, 0.5, 0.9)] == pytest.approx([0.2, 1.1, 2, 2])
