"""The hint that a training waits for its data: when it comes, and what it advises."""

import logging
import os
import re
import time
from types import SimpleNamespace

import pytest
from detectron2.utils.events import EventStorage
from tiny_run import datasets, workplace  # noqa: F401

from mask2former.data import build_train_loader
from mask2former.data.dataset_mapper import build_mapper
from mask2former.engine import data_hint, trainer
from mask2former.engine.data_hint import DataHint, cores_of_a_process


@pytest.fixture
def told(caplog, monkeypatch):
    """The hints that there were until now."""
    monkeypatch.setattr(logging.getLogger("mask2former"), "propagate", True)
    names = (data_hint.__name__,)
    return lambda: [r.getMessage() for r in caplog.records if r.name in names]


def run(hook, waits, seconds=1.0, start=0):
    """Iterations with these waits, each of so many `seconds`; the first two are not timed."""
    with EventStorage(start) as storage:
        hook.trainer = SimpleNamespace(storage=storage, start_iter=start)
        for number, waited in enumerate(waits):
            storage.iter = hook.trainer.iter = start + number
            storage.put_scalar("data_time", waited)
            if number >= 2:
                storage.put_scalar("time", seconds)
            hook.after_step()


def hint(num_workers=4, device_type="sdaa", num_cores=16):
    return DataHint(num_workers, device_type, num_cores, window=5)


def test_it_comes_once_after_some_windows(told):
    run(hint(), [0.5] * 19)
    assert not told()
    run(hint(), [0.5] * 20, start=7)
    run(hint(), [0.5] * 200)
    assert len(told()) == 2
    assert told()[0].startswith("Waiting for data takes 50 % of an iteration (0.5 of 1 s): DATA")


def test_bursts_count_as_a_whole(told):
    """Of four batches that four workers finish together, one has to be waited for."""
    run(hint(), [0.1, 0.1, 0.0, 0.0, 0.0] * 10)
    assert not told()
    run(hint(), [0.9, 0.0, 0.0, 0.0, 0.0] * 10)
    assert len(told()) == 1 and "18 %" in told()[0]


def test_what_passes_is_no_bottleneck(told):
    run(hint(), [9.0] * 5 + [0.01] * 50)  # a cold start
    run(hint(), ([0.0] * 14 + [30.0]) * 10)  # a disk that hiccups
    run(hint(), ([0.6] * 10 + [0.0] * 5) * 5)  # or is busy with others
    run(hint(), [0.1] * 100)
    run(hint(), [0.5] * 2)  # nothing is timed yet
    assert not told()


@pytest.mark.parametrize(
    "num_workers, device_type, num_cores, waited, expected",
    [
        (4, "sdaa", 16, 0.5, "NUM_WORKERS is 4; set it to 8 (there are 16 cores"),
        (4, "sdaa", 16, 0.2, "NUM_WORKERS is 4; set it to 5 "),
        (4, "sdaa", 7, 0.9, "NUM_WORKERS is 4; set it to 6 "),
        (4, "sdaa", 4, 0.9, "NUM_WORKERS 4 leaves no core of 4 unused, so take smaller pictures"),
        (
            0,
            "sdaa",
            8,
            0.75,
            "is 0, so that nothing is loaded while the network computes; set it to 3",
        ),
        (0, "sdaa", 1, 0.75, "NUM_WORKERS 0 leaves no core of 1 unused"),
        (0, "cpu", 2, 0.3, "nothing is loaded while the network computes; set it to 1 "),
        (2, "cpu", 2, 0.3, "NUM_WORKERS 2 leaves no core of 2 unused"),
        (2, "cpu", 16, 1.0, "NUM_WORKERS is 2; set it to 8 "),
    ],
)
def test_advice(told, num_workers, device_type, num_cores, waited, expected):
    run(hint(num_workers, device_type, num_cores), [waited] * 25)
    (text,) = told()
    assert expected in text and "\n" not in text and "tools/benchmark.py data" in text


def test_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(12)), raising=False)
    assert cores_of_a_process() == 12
    monkeypatch.setattr(data_hint.comm, "get_local_size", lambda: 8)
    assert cores_of_a_process() == 1
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    assert cores_of_a_process() == 2


class Slow:
    def __init__(self, mapper):
        self.mapper = mapper

    def __call__(self, entry):
        time.sleep(0.2)
        return self.mapper(entry)


def test_a_real_run(workplace, monkeypatch):  # noqa: F811
    def loader(cfg, start_iter, seed):
        return build_train_loader(cfg, start_iter, seed, Slow(build_mapper(cfg, is_train=True)))

    monkeypatch.setattr(trainer, "build_train_loader", loader)
    monkeypatch.setattr(data_hint, "NUM_WINDOWS", 2)
    monkeypatch.setattr(trainer, "DataHint", lambda *args: DataHint(*args, window=2))
    workplace.main("SOLVER.MAX_ITER", "8", "DATASETS.TEST", "()")
    log = (workplace.output / "log.txt").read_text()
    ((*numbers, advice),) = re.findall(
        r"Waiting for data takes (\d+) % of an iteration \(([\d.]+) of ([\d.]+) s\): (.*)", log
    )
    share, waited, seconds = map(float, numbers)
    assert waited >= 0.4 and share == pytest.approx(100 * waited / seconds, abs=1)
    assert "so that nothing is loaded while the network computes" in advice
