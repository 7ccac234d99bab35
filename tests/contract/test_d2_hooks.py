"""The hooks by themselves, each on a trainer that does as little as it needs."""

import json
import logging
import math
import time

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.engine import HookBase, TrainerBase, hooks
from detectron2.utils.events import EventWriter, JSONWriter
from fvcore.common.param_scheduler import LinearParamScheduler
from torch import nn


class Nothing(TrainerBase):
    def run_step(self):
        pass


class Fails(TrainerBase):
    def run_step(self):
        if self.iter == 3:
            raise KeyError("broken")


def run(*hooks_, num_iter=6, start=0, trainer=None):
    trainer = trainer or Nothing()
    trainer.register_hooks(hooks_)
    trainer.train(start, num_iter)
    return trainer


class Messages(logging.Handler):
    """Collects what detectron2 logs while it is open."""

    def __init__(self):
        super().__init__(logging.INFO)
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())

    def __enter__(self):
        log = logging.getLogger("detectron2")
        self.level_before = log.level
        log.setLevel(logging.INFO)
        log.addHandler(self)
        return self

    def __exit__(self, *_):
        log = logging.getLogger("detectron2")
        log.removeHandler(self)
        log.setLevel(self.level_before)


def test_callback_hook_calls_functions_with_the_trainer():
    calls = []
    functions = {
        name: lambda trainer, name=name: calls.append((name, trainer.iter))
        for name in ("before_train", "before_step", "after_step", "after_train")
    }
    run(hooks.CallbackHook(**functions), hooks.CallbackHook(), num_iter=1)
    assert calls == [("before_train", 0), ("before_step", 0), ("after_step", 0), ("after_train", 1)]


def test_iteration_timer_measures_steps_without_hooks():
    class Slow(TrainerBase):
        def run_step(self):
            time.sleep(0.02)

    slow_hook = hooks.CallbackHook(after_step=lambda trainer: time.sleep(0.1))
    with Messages() as messages:
        trainer = run(hooks.IterationTimer(warmup_iter=3), slow_hook, trainer=Slow(), num_iter=5)
    times = trainer.storage.history("time").values()
    assert [i for _, i in times] == [2, 3, 4]  # the first two are warming up
    assert all(0.02 <= seconds < 0.1 for seconds, _ in times)
    assert any(
        m.startswith("Overall training speed: 3 iterations in 0:00:00") for m in messages.lines
    )
    assert any(m.startswith("Total training time: 0:00:0") for m in messages.lines)


def test_iteration_timer_counts_from_the_start_of_a_resumed_run():
    trainer = run(hooks.IterationTimer(warmup_iter=2), start=10, num_iter=14)
    assert [i for _, i in trainer.storage.history("time").values()] == [11, 12, 13]


class CountingWriter(EventWriter):
    def __init__(self):
        self.calls = []
        self.trainer = None

    def write(self):
        self.calls.append(self.trainer.iter)

    def close(self):
        self.calls.append("close")


def test_periodic_writer_writes_at_periods_after_the_last_step_and_at_the_end():
    writer = CountingWriter()
    writer.trainer = Nothing()
    run(hooks.PeriodicWriter([writer], period=3), trainer=writer.trainer, num_iter=7)
    assert writer.calls == [2, 5, 6, 7, "close"]


def test_periodic_writer_refuses_what_is_no_writer():
    with pytest.raises((AssertionError, TypeError)):
        hooks.PeriodicWriter([object()])


def test_periodic_writer_writes_what_after_train_brought(tmp_path):
    late = hooks.CallbackHook(after_train=lambda trainer: trainer.storage.put_scalar("late", 5.0))
    path = tmp_path / "metrics.json"
    run(late, hooks.PeriodicWriter([JSONWriter(str(path))]), num_iter=2)
    last = json.loads(path.read_text().splitlines()[-1])
    assert last["late"] == 5.0


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_periodic_checkpointer_saves_at_periods_and_at_the_end(tmp_path):
    checkpointer = DetectionCheckpointer(nn.Linear(1, 1), str(tmp_path))
    run(hooks.PeriodicCheckpointer(checkpointer, period=3), num_iter=7)
    assert names(tmp_path) == [
        "last_checkpoint",
        "model_0000002.pth",
        "model_0000005.pth",
        "model_final.pth",
    ]
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
    saved = torch.load(tmp_path / "model_0000005.pth", weights_only=True)
    assert saved["iteration"] == 5
    assert set(saved["model"]) == {"weight", "bias"}


def test_periodic_checkpointer_keeps_the_newest(tmp_path):
    checkpointer = DetectionCheckpointer(nn.Linear(1, 1), str(tmp_path))
    run(hooks.PeriodicCheckpointer(checkpointer, 2, max_to_keep=1, file_prefix="m"), num_iter=5)
    assert names(tmp_path) == ["last_checkpoint", "m_0000003.pth", "m_final.pth"]


def scores(values):
    """A hook that puts the next of `values` as "task/score" after each step but the last, and
    in after_train: where EvalHook(1, ...) does."""
    values = iter(values)
    return hooks.EvalHook(1, lambda: {"task": {"score": next(values)}})


@pytest.mark.parametrize("mode, best", [("max", (4.0, 2)), ("min", (1.0, 1))])
def test_best_checkpointer_keeps_the_best(tmp_path, mode, best):
    model = nn.Linear(1, 1)
    checkpointer = DetectionCheckpointer(model, str(tmp_path))
    hook = hooks.BestCheckpointer(1, checkpointer, "task/score", mode=mode)
    marks = hooks.CallbackHook(before_step=lambda t: nn.init.constant_(model.bias, t.iter))
    run(marks, scores([3.0, 1.0, 4.0, 2.0]), hook, num_iter=4)
    assert (hook.best_metric, hook.best_iter) == best
    saved = torch.load(tmp_path / "model_best.pth", weights_only=True)
    assert saved["iteration"] == best[1]
    assert saved["model"]["bias"].item() == best[1]


def test_best_checkpointer_looks_at_the_last_evaluation_too(tmp_path):
    checkpointer = DetectionCheckpointer(nn.Linear(1, 1), str(tmp_path))
    hook = hooks.BestCheckpointer(1, checkpointer, "task/score", file_prefix="top")
    run(scores([math.nan, 1.0, 5.0]), hook, num_iter=3)
    assert hook.best_metric == 5.0
    assert (tmp_path / "top.pth").is_file()


def test_best_checkpointer_waits_for_the_metric(tmp_path):
    checkpointer = DetectionCheckpointer(nn.Linear(1, 1), str(tmp_path))
    hook = hooks.BestCheckpointer(2, checkpointer, "task/score")
    with Messages() as messages:
        run(hook, num_iter=5)
    assert len([m for m in messages.lines if "task/score" in m]) == 3  # two periods and the end
    assert names(tmp_path) == []


def sgd(*rates, sizes=None):
    groups = [
        {"params": [nn.Parameter(torch.zeros(1)) for _ in range(size)], "lr": lr}
        for lr, size in zip(rates, sizes or [1] * len(rates), strict=True)
    ]
    return torch.optim.SGD(groups)


def test_lr_scheduler_steps_after_each_iteration():
    trainer = Nothing()
    trainer.optimizer = sgd(1.0)
    trainer.scheduler = torch.optim.lr_scheduler.StepLR(trainer.optimizer, 2, gamma=0.1)
    run(hooks.LRScheduler(), trainer=trainer, num_iter=4)
    history = trainer.storage.history("lr").values()
    assert [lr for lr, _ in history] == pytest.approx([1.0, 1.0, 0.1, 0.1])
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.01)


def test_lr_scheduler_takes_multipliers_from_where_the_run_starts():
    trainer = Nothing()
    optimizer = sgd(2.0)
    optimizer.param_groups[0]["initial_lr"] = 2.0  # as a resumed optimizer has it
    hook = hooks.LRScheduler(optimizer, LinearParamScheduler(1.0, 0.0))
    run(hook, trainer=trainer, start=4, num_iter=8)
    history = trainer.storage.history("lr").values()
    assert [(lr, i) for lr, i in history] == [(1.0, 4), (0.75, 5), (0.5, 6), (0.25, 7)]


def test_lr_scheduler_keeps_its_state():
    trainer = Nothing()
    trainer.optimizer = sgd(1.0)
    trainer.scheduler = torch.optim.lr_scheduler.StepLR(trainer.optimizer, 2)
    run(hooks.LRScheduler(), trainer=trainer, num_iter=3)
    state = trainer.state_dict()
    assert state["hooks"]["LRScheduler"]["last_epoch"] == 3
    fresh = Nothing()
    fresh.optimizer = sgd(1.0)
    fresh.scheduler = torch.optim.lr_scheduler.StepLR(fresh.optimizer, 2)
    fresh.register_hooks([hooks.LRScheduler()])
    fresh.load_state_dict(state)
    assert fresh.scheduler.last_epoch == 3


def test_lr_scheduler_with_multipliers_has_no_state_of_its_own_before_training():
    hook = hooks.LRScheduler(sgd(1.0), LinearParamScheduler(1.0, 0.0))
    assert hook.state_dict() == {}


@pytest.mark.parametrize(
    "rates, sizes, expected",
    [
        ((0.1, 0.2, 0.3), (1, 4, 4), 1),  # the first of the largest groups
        ((0.1, 0.2, 0.2), (1, 1, 1), 1),  # all of one parameter: the most common rate
        ((0.3, 0.2), (1, 1), 0),
    ],
)
def test_the_shown_learning_rate_is_of_the_group_that_matters(rates, sizes, expected):
    assert hooks.LRScheduler.get_best_param_group_id(sgd(*rates, sizes=sizes)) == expected


def test_eval_hook_runs_at_periods_and_after_the_last_iteration():
    calls = []
    trainer = Nothing()

    def evaluate():
        calls.append(trainer.iter)
        return {"a": {"b": 1.5, "c": {"d": 2}}, "e": 3.0}

    run(hooks.EvalHook(2, evaluate), trainer=trainer, num_iter=6)
    assert calls == [1, 3, 6]  # not at 5: after_train evaluates that state
    latest = trainer.storage.latest()
    assert {k: v[0] for k, v in latest.items()} == {"a/b": 1.5, "a/c/d": 2, "e": 3.0}
    assert not any(trainer.storage.smoothing_hints().values())


@pytest.mark.parametrize("period, after, expected", [(0, True, 1), (0, False, 0), (3, False, 1)])
def test_eval_hook_can_leave_out_either(period, after, expected):
    calls = []
    run(hooks.EvalHook(period, lambda: calls.append(1), eval_after_train=after), num_iter=6)
    assert len(calls) == expected


def test_eval_hook_does_not_evaluate_after_a_failure():
    calls = []
    with pytest.raises(KeyError):
        run(hooks.EvalHook(0, lambda: calls.append(1)), trainer=Fails(), num_iter=6)
    assert calls == []


@pytest.mark.parametrize("results", [{"a": {"b": "high"}}, {"a": None}])
def test_eval_hook_refuses_what_is_no_number(results):
    with pytest.raises(ValueError, match="a"):
        run(hooks.EvalHook(1, lambda: results), num_iter=2)


def test_precise_bn_takes_the_true_average():
    model = nn.Sequential(nn.BatchNorm1d(2, momentum=0.1))
    batches = [torch.tensor([[0.0, 10.0], [2.0, 14.0]]), torch.tensor([[4.0, 0.0], [6.0, 4.0]])]
    run(hooks.PreciseBN(0, model, batches, num_iter=2), num_iter=3)
    assert model[0].running_mean.tolist() == pytest.approx([3.0, 7.0])
    assert model[0].momentum == 0.1


def test_precise_bn_runs_at_periods_and_last():
    seen = []

    class Watches(nn.BatchNorm1d):
        def forward(self, x):
            seen.append(x[0, 0].item())
            return super().forward(x)

    batches = [torch.full((2, 1), float(i)) for i in range(6)]
    run(hooks.PreciseBN(2, Watches(1), batches, num_iter=2), num_iter=5)
    assert seen == [0, 1, 2, 3, 4, 5]  # after iterations 1, 3 and 4: one iterator goes on


def test_precise_bn_is_off_without_batch_norm():
    def no_batch():
        raise AssertionError("asked for a batch")
        yield

    hooks.PreciseBN(1, nn.Linear(1, 1), no_batch(), num_iter=2).update_stats()


def test_profiler_leaves_a_trace_of_the_iterations_asked_for(tmp_path):
    profiler = hooks.TorchProfiler(
        lambda trainer: trainer.iter == 1, str(tmp_path), save_tensorboard=False
    )
    run(profiler, num_iter=3)
    assert names(tmp_path) == ["profiler-trace-iter1.json"]
    assert "traceEvents" in json.loads((tmp_path / "profiler-trace-iter1.json").read_text())


def test_profiler_writes_for_tensorboard(tmp_path):
    run(hooks.TorchProfiler(lambda trainer: trainer.iter == 0, str(tmp_path)), num_iter=1)
    (trace,) = (tmp_path / "log" / "profiler-tensorboard-iter0").iterdir()
    assert trace.name.startswith("worker0.")


def test_hooks_are_hooks():
    for name in ("PeriodicWriter", "PeriodicCheckpointer", "EvalHook", "LRScheduler", "PreciseBN"):
        assert issubclass(getattr(hooks, name), HookBase)
