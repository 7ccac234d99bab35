"""The loop over a test set, evaluators together, and what is done with their results."""

import logging
import time
from collections import OrderedDict
from types import SimpleNamespace

import pytest
import torch
from detectron2.evaluation import (
    DatasetEvaluator,
    DatasetEvaluators,
    inference_context,
    inference_on_dataset,
    print_csv_format,
    verify_results,
)
from detectron2.evaluation.testing import flatten_results_dict
from torch import nn


@pytest.fixture
def messages(monkeypatch):
    """What detectron2 logs, whether or not its loggers were cut off from the root logger."""
    logged = []
    handler = logging.Handler()
    handler.emit = lambda record: logged.append(record.getMessage())
    logger = logging.getLogger("detectron2")
    monkeypatch.setattr(logger, "handlers", [handler])
    level = logger.level
    logger.setLevel(logging.INFO)
    yield logged
    logger.setLevel(level)


class Doubler(nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0))
        self.modes = []

    def forward(self, batch):
        output = [{"value": item["value"] * self.factor} for item in batch]
        self.modes.append((self.training, output[0]["value"].requires_grad))
        return output


class Sum(DatasetEvaluator):
    def __init__(self, task):
        self.task = task

    def reset(self):
        self.total = 0.0

    def process(self, inputs, outputs):
        self.total += sum(output["value"].item() for output in outputs)

    def evaluate(self):
        return {self.task: {"total": self.total}}


BATCHES = [[{"value": float(2 * i)}, {"value": float(2 * i + 1)}] for i in range(12)]


@pytest.mark.parametrize("was_training", [True, False])
def test_inference_runs_in_eval_mode_without_gradients(was_training):
    model = Doubler().train(was_training)
    results = inference_on_dataset(model, BATCHES, Sum("sum"))
    assert results == {"sum": {"total": 2.0 * sum(range(24))}}
    assert model.modes == [(False, False)] * 12
    assert model.training is was_training
    with inference_context(model):
        assert not model.training
    assert model.training is was_training


def test_inference_takes_a_function_several_evaluators_or_none():
    def identity(batch):
        return [{"value": torch.tensor(item["value"])} for item in batch]

    results = inference_on_dataset(identity, BATCHES[:1], [Sum("a"), Sum("b")])
    assert results == {"a": {"total": 1.0}, "b": {"total": 1.0}}
    assert inference_on_dataset(identity, BATCHES[:1], None) == {}
    assert inference_on_dataset(identity, [], Sum("a")) == {"a": {"total": 0.0}}

    class Elsewhere(Sum):
        def evaluate(self):
            return None

    assert inference_on_dataset(identity, BATCHES[:1], Elsewhere("a")) == {}


def test_inference_calls_back_and_tells_the_time(messages, monkeypatch):
    for clock in ("time", "monotonic"):  # the progress line comes at most every few seconds
        later = getattr(time, clock)() + 100
        monkeypatch.setattr(time, clock, lambda later=later: later)
    calls = []
    names = ("on_start", "before_inference", "after_inference", "on_end")
    callbacks = {name: lambda name=name: calls.append(name) for name in names}
    inference_on_dataset(Doubler(), BATCHES, None, callbacks=callbacks)
    assert calls == ["on_start", *["before_inference", "after_inference"] * 12, "on_end"]
    text = "\n".join(messages)
    assert "Start inference on 12 batches" in text
    assert "Inference done 11/12" in text and "ETA=" in text
    assert "Total inference time" in text and "Total inference pure compute time" in text


def test_evaluators_refuse_one_task_twice():
    evaluators = DatasetEvaluators([Sum("a"), Sum("a")])
    evaluators.reset()
    with pytest.raises(AssertionError):
        evaluators.evaluate()


def test_results_are_printed_as_two_lines(messages):
    metrics = {"mIoU": 12.34567, "IoU-road": 3.0, "pACC": 50.0}
    print_csv_format(OrderedDict(sem_seg=metrics, score=1.5))
    assert messages == [
        "copypaste: Task: sem_seg",
        "copypaste: mIoU,pACC",
        "copypaste: 12.3457,50.0000",
        "copypaste: score=1.5",
    ]


@pytest.mark.parametrize(
    ("actual", "passes"), [(49.5, True), (51.5, False), (float("nan"), False), (None, False)]
)
def test_results_are_verified(actual, passes):
    expected = [["sem_seg", "mIoU", 50.0, 1.0]]
    cfg = SimpleNamespace(TEST=SimpleNamespace(EXPECTED_RESULTS=expected))
    results = {"sem_seg": {} if actual is None else {"mIoU": actual}}
    if passes:
        assert verify_results(cfg, results)
    else:
        with pytest.raises(SystemExit) as stop:
            verify_results(cfg, results)
        assert stop.value.code == 1
    cfg.TEST.EXPECTED_RESULTS = []
    assert verify_results(cfg, results)


def test_results_are_flattened():
    nested = {"a": {"b": {"c": 1}, "d": 2}, "e": 3}
    assert flatten_results_dict(nested) == {"a/b/c": 1, "a/d": 2, "e": 3}
