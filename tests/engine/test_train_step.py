"""One iteration: accumulation, mixed precision, the loss guard, random numbers, state."""

import random
import warnings

import numpy as np
import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import nn

from mask2former.engine.train_step import (
    TrainStep,
    check_optimizer_state,
    gradient_norm,
    seed_iteration,
)


class Regression(nn.Module):
    """Two losses of a linear model; a sample's "poison" is added to the first."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(3, 1)
        self.saw = []

    def forward(self, batch):
        x = torch.stack([sample["x"] for sample in batch])
        y = self.linear(x)
        self.saw.append((y.dtype, torch.rand(())))
        poison = sum(sample.get("poison", 0.0) for sample in batch)
        return {"loss_a": (y.float() ** 2).mean() + poison, "loss_b": y.float().abs().mean()}


def samples(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        {"x": torch.randn(3, generator=generator), "file_name": f"{i}.png"} for i in range(count)
    ]


def make(batches, **kwargs):
    model = Regression()
    step = TrainStep(model, torch.optim.SGD(model.parameters(), 0.1), seed=5, **kwargs)
    if batches:
        step.read_from(batches)
    return step


def run(step, iterations):
    with EventStorage() as storage:
        for step.iter in iterations:
            storage.iter = step.iter
            step.run_step()
    return storage


def test_building_a_step_leaves_other_peoples_warnings_alone():
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        make([])
        warnings.warn(
            "Detected call of `lr_scheduler.step()` before `optimizer.step()`", stacklevel=1
        )
    assert len(heard) == 1


def test_accumulated_parts_are_one_batch():
    data = samples(4)
    whole, parts = make([data]), make([data[:2], data[2:]], accumulate_steps=2)
    storages = run(whole, range(1)), run(parts, range(1))
    assert torch.allclose(whole.model.linear.weight, parts.model.linear.weight, atol=1e-7)
    losses = [s.latest()["total_loss"][0] for s in storages]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_metrics_name_losses_norm_and_memory():
    latest = run(make([samples(2)]), range(1)).latest()
    assert set(latest) == {
        *("loss_a", "loss_b", "total_loss"),
        *("grad_norm", "data_time", "max_mem_mb"),
    }
    total = latest["loss_a"][0] + latest["loss_b"][0]
    assert latest["total_loss"][0] == pytest.approx(total)


def test_autocast_reaches_the_model():
    step = make([samples(2)], amp_dtype=torch.bfloat16)
    run(step, range(1))
    assert step.model.saw[0][0] == torch.bfloat16
    assert step.model.linear.weight.grad.dtype == torch.float32


def test_float16_is_scaled_and_unscaled():
    plain, scaled = make([samples(2)]), make([samples(2)], amp_dtype=torch.float16)
    scaled.grad_scaler = torch.amp.GradScaler("cpu", init_scale=64.0)  # 65536 would overflow
    norms = [run(step, range(1)).latest()["grad_norm"][0] for step in (plain, scaled)]
    assert scaled.grad_scaler.get_scale() == 64.0
    assert norms[0] == pytest.approx(norms[1], rel=0.01)


@pytest.mark.parametrize("amp_dtype", [None, torch.float16])
@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_one_non_finite_loss_is_left_out(poison, amp_dtype, caplog):
    good, bad = samples(2), [samples(1)[0] | {"poison": poison}]
    step = make([bad, good], amp_dtype=amp_dtype)
    before = step.model.linear.weight.detach().clone()
    with caplog.at_level("WARNING", logger="mask2former"):
        run(step, range(1))
    assert torch.equal(step.model.linear.weight, before)
    assert "iteration 0: loss_a not finite on 0.png" in caplog.text
    run(step, range(1, 2))
    assert not torch.equal(step.model.linear.weight, before)
    assert step.num_non_finite_steps == 0


def test_non_finite_gradient_of_a_finite_loss_is_left_out():
    step = make([samples(2)])
    step.model.linear.weight.register_hook(lambda grad: grad * float("nan"))
    before = step.model.linear.weight.detach().clone()
    run(step, range(1))
    assert torch.equal(step.model.linear.weight, before)
    assert step.num_non_finite_steps == 1


def test_gradients_that_no_scale_makes_finite_stop_the_run():
    step = make([samples(2)] * 9, amp_dtype=torch.float16, max_non_finite_steps=2)
    step.grad_scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    step.model.linear.weight.register_hook(lambda grad: grad * float("nan"))
    with pytest.raises(FloatingPointError, match="iteration 4: grad_norm not finite"):
        run(step, range(9))  # with scales of 4, 2, 1, and two below


def test_staying_non_finite_stops_the_run():
    bad = [samples(1)[0] | {"poison": float("nan"), "file_name": "broken.png"}]
    step = make([bad] * 3, max_non_finite_steps=3)
    with pytest.raises(FloatingPointError) as error:
        run(step, range(7, 10))
    sentence = str(error.value)
    assert "iteration 9" in sentence and "loss_a" in sentence and "loss_b" not in sentence
    assert "broken.png" in sentence and "3 iterations" in sentence and "\n" not in sentence


def test_non_finite_values_stay_out_of_the_curves():
    bad = [samples(1)[0] | {"poison": float("nan")}]
    latest = run(make([bad]), range(1)).latest()
    assert "loss_b" in latest and "loss_a" not in latest and "total_loss" not in latest


def test_first_batch_is_read_at_once():
    def broken():
        yield samples(1)
        raise ValueError("second.png is broken")

    step = make(broken())
    run(step, range(1))
    with pytest.raises(ValueError, match=r"second\.png"):
        run(step, range(1, 2))


def test_random_numbers_follow_from_seed_rank_and_iteration():
    def draw(*args):
        seed_iteration(*args, "cpu")
        return random.random(), np.random.rand(), torch.rand(()).item()

    assert draw(1, 0, 3) == draw(1, 0, 3)
    others = [draw(2, 0, 3), draw(1, 1, 3), draw(1, 0, 4), draw(1, 3, 0)]
    assert len({draw(1, 0, 3), *others}) == 5
    assert len({values[i] for values in others for i in range(3)}) == 12


def test_each_iteration_draws_by_its_number():
    one, other = make([samples(1)] * 3), make([samples(1)] * 3)
    run(one, range(3))
    torch.rand(100)
    run(other, range(2, 3))
    assert one.model.saw[2][1] == other.model.saw[0][1] != one.model.saw[1][1]


def test_state_returns():
    one, other = make([samples(2)], amp_dtype=torch.float16), make([], amp_dtype=torch.float16)
    run(one, range(1))
    one.grad_scaler.update(8.0)
    other.load_state_dict(one.state_dict() | {"seed": 77})
    assert other.seed == 77 and other.grad_scaler.get_scale() == 8.0 and other.iter == 0


def test_state_of_another_optimizer_is_one_sentence():
    step = make([samples(1)])
    state = step.state_dict()
    state["optimizer"]["param_groups"][0]["params"].append(9)
    with pytest.raises(ValueError, match=r"groups of \[3\] parameters, this one of \[2\]"):
        step.load_state_dict(state)


@pytest.mark.parametrize("saved, used", [("SGD", "AdamW"), ("AdamW", "SGD")])
def test_state_of_another_kind_of_optimizer_is_one_sentence(saved, used):
    one, other = (
        getattr(torch.optim, name)([nn.Parameter(torch.zeros(1))], lr=0.1) for name in (saved, used)
    )
    check_optimizer_state(one, one.state_dict())
    with pytest.raises(ValueError, match=r"another SOLVER\.OPTIMIZER .*; resume with the config"):
        check_optimizer_state(other, one.state_dict())


def test_gradient_norm():
    model = nn.ParameterList([torch.zeros(1), torch.zeros(1), torch.zeros(1)])
    model[0].grad, model[1].grad = torch.tensor([3.0]), torch.tensor([-4.0])
    assert gradient_norm(model) == 5.0
