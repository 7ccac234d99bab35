"""The training loop: what is called when, what is stored, what stops it."""

import copy
import logging
import weakref

import pytest
import torch
from detectron2.engine import AMPTrainer, HookBase, SimpleTrainer, TrainerBase
from detectron2.utils.events import EventStorage
from torch import nn


class Recorder(HookBase):
    """Notes each call with its own name and the trainer's iteration."""

    def __init__(self, name, calls):
        self.name = name
        self.calls = calls

    def _note(self, method):
        self.calls.append((self.name, method, self.trainer.iter, self.trainer.storage.iter))

    def before_train(self):
        self._note("before_train")

    def after_train(self):
        self._note("after_train")

    def before_step(self):
        self._note("before_step")

    def after_backward(self):
        self._note("after_backward")

    def after_step(self):
        self._note("after_step")


class Counter(HookBase):
    def __init__(self, count=0):
        self.count = count

    def after_step(self):
        self.count += 1

    def state_dict(self):
        return {"count": self.count} if self.count else {}

    def load_state_dict(self, state_dict):
        self.count = state_dict["count"]


class OtherCounter(Counter):
    pass


class Nothing(TrainerBase):
    def run_step(self):
        pass


class Regression(nn.Module):
    """Batches are (x, y); the losses are two parts of the squared error."""

    def __init__(self, weight=2.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, batch):
        x, y = batch
        error = (self.weight * x - y) ** 2
        return {"loss_a": 0.25 * error, "loss_b": 0.75 * error}


class SingleLoss(Regression):
    def forward(self, batch):
        return sum(super().forward(batch).values())


def make_trainer(model=None, batches=((1.0, 1.0),) * 10, lr=0.1, **kwargs):
    model = model or Regression()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    return SimpleTrainer(model, list(batches), optimizer, **kwargs)


def test_hooks_are_called_in_their_order():
    calls = []
    trainer = make_trainer()
    trainer.register_hooks([Recorder("a", calls), None, Recorder("b", calls)])
    trainer.train(3, 5)
    step = ["before_step", "after_backward", "after_step"]
    expected = [(n, "before_train", 3, 3) for n in "ab"]
    expected += [(n, m, i, i) for i in (3, 4) for m in step for n in "ab"]
    expected += [(n, "after_train", 5, 5) for n in "ab"]
    assert calls == expected
    assert (trainer.start_iter, trainer.iter, trainer.max_iter) == (3, 5, 5)


def test_after_train_follows_a_failure_and_sees_where_it_was():
    calls = []

    class Fails(TrainerBase):
        def run_step(self):
            if self.iter == 1:
                raise KeyError("broken")

    trainer = Fails()
    trainer.register_hooks([Recorder("a", calls)])
    with pytest.raises(KeyError, match="broken"):
        trainer.train(0, 5)
    assert calls[-1] == ("a", "after_train", 1, 1)
    assert [c[1] for c in calls].count("after_step") == 1


def test_a_failure_is_logged():
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    log = logging.getLogger("detectron2.engine.train_loop")
    log.addHandler(handler)
    try:
        with pytest.raises(NotImplementedError):
            TrainerBase().train(0, 1)
    finally:
        log.removeHandler(handler)
    (failure,) = [r for r in records if r.levelno == logging.ERROR]
    assert failure.exc_info[0] is NotImplementedError


def test_what_is_no_hook_is_refused():
    with pytest.raises((AssertionError, TypeError)):
        Nothing().register_hooks([object()])


def test_a_trainer_is_freed_with_its_hooks():
    trainer = Nothing()
    trainer.register_hooks([Counter()])
    reference = weakref.ref(trainer)
    del trainer
    assert reference() is None


def test_state_holds_the_iteration_and_the_hooks_that_have_state():
    trainer = Nothing()
    assert trainer.state_dict() == {"iteration": 0}
    trainer.register_hooks([HookBase(), Counter(), OtherCounter(), Counter()])
    trainer.train(0, 2)
    trainer._hooks[3].count = 77  # of two hooks of a class only the first has a place
    state = trainer.state_dict()
    assert state == {
        "iteration": 2,
        "hooks": {"Counter": {"count": 2}, "OtherCounter": {"count": 2}},
    }
    fresh = Nothing()
    fresh.register_hooks([Counter(), Counter()])
    fresh.load_state_dict(state)  # OtherCounter has no taker, which is no error
    assert fresh.iter == 2
    assert [h.count for h in fresh._hooks] == [2, 0]


def test_a_step_is_the_optimizers_on_the_sum_of_the_losses():
    trainer = make_trainer()
    trainer.train(0, 1)
    # d/dw (w - 1)^2 = 2 (w - 1) = 2 at w = 2
    assert trainer.model.weight.item() == pytest.approx(2 - 0.1 * 2)
    assert trainer.storage.latest()["total_loss"] == (1.0, 0)
    assert trainer.storage.latest()["loss_a"] == (0.25, 0)
    assert trainer.storage.latest()["loss_b"] == (0.75, 0)
    assert trainer.storage.latest()["data_time"][0] >= 0
    assert trainer.storage.latest()["rank_data_time"][0] >= 0


def test_a_single_loss_is_the_total():
    trainer = make_trainer(SingleLoss())
    trainer.train(0, 2)
    assert trainer.model.weight.item() == pytest.approx(1 + 0.8**2)
    history = trainer.storage.history("total_loss").values()
    assert [pytest.approx(v) for v, _ in history] == [1.0, 0.8**2]


@pytest.mark.parametrize("before", [False, True])
def test_gradients_are_cleared_where_asked(before):
    seen = []

    class Watches(Regression):
        def forward(self, batch):
            seen.append(self.weight.grad is None)
            return super().forward(batch)

    trainer = make_trainer(Watches(), zero_grad_before_forward=before)
    trainer.train(0, 2)
    assert seen == [True, before]  # in the second forward the first gradient is there, or not
    assert trainer.model.weight.item() == pytest.approx(1 + 0.8**2)


def test_the_model_is_put_into_training_mode_and_must_stay_there():
    model = Regression().eval()
    trainer = make_trainer(model)
    assert model.training
    model.eval()
    with pytest.raises(AssertionError, match="eval mode"):
        trainer.train(0, 1)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_non_finite_loss_stops_before_the_weights_change(bad):
    trainer = make_trainer(batches=[(1.0, 1.0), (1.0, bad)])
    with pytest.raises(FloatingPointError, match="iteration=1"):
        trainer.train(0, 2)
    assert trainer.model.weight.item() == pytest.approx(1.8)


def test_losses_are_gathered_every_so_many_iterations():
    trainer = make_trainer(gather_metric_period=3)
    trainer.train(0, 7)
    iterations = [i for _, i in trainer.storage.history("total_loss").values()]
    assert iterations == [2, 5]


def test_losses_may_be_written_in_a_thread():
    trainer = make_trainer(async_write_metrics=True)
    trainer.train(0, 4)
    iterations = [i for _, i in trainer.storage.history("total_loss").values()]
    assert iterations == [0, 1, 2, 3]


def test_metrics_can_be_written_by_themselves():
    losses = {"loss_x": torch.tensor(2.0), "loss_y": torch.tensor(3.0)}
    with EventStorage(5) as storage:
        SimpleTrainer.write_metrics(losses, 0.5, 7, prefix="val_")
    assert storage.latest() == {
        "rank_data_time": (0.5, 7),
        "data_time": (0.5, 7),
        "val_total_loss": (5.0, 7),
        "loss_x": (2.0, 7),
        "loss_y": (3.0, 7),
    }


def test_the_loader_is_started_late_and_can_be_replaced():
    started = []

    class Loader:
        def __init__(self, y):
            self.y = y

        def __iter__(self):
            started.append(self.y)
            while True:
                yield 1.0, self.y

    trainer = make_trainer()
    trainer.data_loader = Loader(1.0)
    assert started == []
    trainer.train(0, 2)
    trainer.reset_data_loader(lambda: Loader(5.0))
    assert trainer.data_loader.y == 5.0
    trainer.train(2, 4)
    assert started == [1.0, 5.0]


def test_an_exhausted_loader_ends_the_run():
    trainer = make_trainer(batches=[(1.0, 1.0)])
    with pytest.raises(StopIteration):
        trainer.train(0, 2)


def test_state_of_a_simple_trainer_has_the_optimizer():
    trainer = make_trainer()
    trainer.optimizer = torch.optim.SGD(trainer.model.parameters(), lr=0.1, momentum=0.9)
    trainer.train(0, 3)
    state = copy.deepcopy(trainer.state_dict())
    assert set(state) == {"iteration", "optimizer"}
    fresh = make_trainer(Regression(trainer.model.weight.item()))
    fresh.optimizer = torch.optim.SGD(fresh.model.parameters(), lr=0.5, momentum=0.9)
    fresh.load_state_dict(state)
    for t in (trainer, fresh):
        t.train(3, 5)
    assert fresh.model.weight.item() == trainer.model.weight.item()


def test_amp_trainer_keeps_its_scaler():
    model = Regression()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    trainer = AMPTrainer(model, [], optimizer, grad_scaler=scaler, precision=torch.bfloat16)
    assert trainer.precision == torch.bfloat16
    state = trainer.state_dict()
    assert set(state) == {"iteration", "optimizer", "grad_scaler"}
    assert state["grad_scaler"]["scale"] == 64.0
    other = AMPTrainer(
        model, [], optimizer, grad_scaler=torch.amp.GradScaler("cpu", init_scale=2.0)
    )
    other.load_state_dict(state)
    assert other.state_dict()["grad_scaler"]["scale"] == 64.0
