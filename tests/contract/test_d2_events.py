"""The event storage, and what its writers write."""

import json
import logging

import numpy as np
import pytest
import torch
from detectron2.utils.events import (
    CommonMetricPrinter,
    EventStorage,
    EventWriter,
    JSONWriter,
    TensorboardXWriter,
    get_event_storage,
    has_event_storage,
)


def test_the_innermost_storage_is_current():
    assert not has_event_storage()
    with pytest.raises(AssertionError):
        get_event_storage()
    with EventStorage() as outer:
        with EventStorage(5) as inner:
            assert get_event_storage() is inner
        assert get_event_storage() is outer
        assert has_event_storage()
    assert not has_event_storage()


def test_iterations():
    storage = EventStorage(start_iter=7)
    assert storage.iter == storage.iteration == 7
    storage.step()
    assert storage.iter == 8
    storage.iter = 3.0
    assert storage.iter == 3 and isinstance(storage.iter, int)


def test_scalars_and_their_history():
    storage = EventStorage(10)
    storage.put_scalar("loss", torch.tensor(4.0))
    storage.step()
    storage.put_scalars(loss=np.float32(2), accuracy=1)
    storage.put_scalar("late", 5, smoothing_hint=False, cur_iter=3)
    assert storage.history("loss").values() == [(4.0, 10), (2.0, 11)]
    assert storage.latest() == {"loss": (2.0, 11), "accuracy": (1.0, 11), "late": (5.0, 3)}
    assert set(storage.histories()) == {"loss", "accuracy", "late"}
    assert storage.smoothing_hints() == {"loss": True, "accuracy": True, "late": False}
    with pytest.raises(KeyError, match="nothing"):
        storage.history("nothing")
    with pytest.raises(AssertionError, match="loss"):
        storage.put_scalar("loss", 1, smoothing_hint=False)


def test_smoothing_is_a_median_over_iterations():
    storage = EventStorage()
    for i in range(10):
        storage.iter = 2 * i  # put at every second iteration
        storage.put_scalar("noisy", i**2)
        storage.put_scalar("exact", i**2, smoothing_hint=False)
    # iterations 11 to 18 have the values of i = 6, 7, 8, 9
    assert storage.count_samples("noisy", 8) == 4
    assert storage.count_samples("noisy", 100) == 10
    smoothed = storage.latest_with_smoothing_hint(8)
    assert smoothed == {"noisy": (np.median([36, 49, 64, 81]), 18), "exact": (81, 18)}


def test_name_scopes():
    storage = EventStorage()
    with storage.name_scope("eval"):
        storage.put_scalar("loss", 1)
        with storage.name_scope("other/"):
            storage.put_scalar("loss", 2)
        storage.put_scalar("accuracy", 3)
    storage.put_scalar("loss", 4)
    assert set(storage.latest()) == {"eval/loss", "other/loss", "eval/accuracy", "loss"}


def test_json_lines(tmp_path):
    path = tmp_path / "metrics.json"
    writer = JSONWriter(str(path), window_size=3)
    with EventStorage() as storage:
        for i, loss in enumerate([9.0, 1.0, 2.0, 6.0]):
            storage.iter = i
            storage.put_scalar("loss", loss)
            storage.put_scalar("lr", 0.1, smoothing_hint=False)
            if i == 1:
                storage.put_scalar("mIoU", 50.0, smoothing_hint=False)
            if i % 2:
                writer.write()
        writer.write()  # nothing is new
    writer.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [
        {"iteration": 1, "loss": 5.0, "lr": 0.1, "mIoU": 50.0},
        {"iteration": 3, "loss": 2.0, "lr": 0.1},
    ]


def test_json_lines_of_several_iterations_and_of_a_resumed_run(tmp_path):
    path = tmp_path / "metrics.json"
    for start in (0, 10):
        writer = JSONWriter(str(path))
        with EventStorage(start) as storage:
            storage.put_scalar("a", 1)
            storage.step()
            storage.put_scalar("b", 2)
            writer.write()
        writer.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [
        {"a": 1.0, "iteration": 0},
        {"b": 2.0, "iteration": 1},
        {"a": 1.0, "iteration": 10},
        {"b": 2.0, "iteration": 11},
    ]


def test_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    writer = TensorboardXWriter(str(tmp_path), window_size=2)
    with EventStorage() as storage:
        for i in range(3):
            storage.iter = i
            storage.put_scalar("loss", float(2**i))
            storage.put_image("picture", torch.zeros(3, 4, 5))
            storage.put_histogram("weights", torch.tensor([0.0, 1.0, 1.0, 3.0]), bins=3)
            writer.write()
            assert not storage._vis_data and not storage._histograms
        writer.write()
    writer.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    scalars = [(e.step, e.value) for e in events.Scalars("loss")]
    assert scalars == [(0, 1.0), (1, 1.5), (2, 3.0)]
    images = events.Images("picture")
    assert [(e.step, e.height, e.width) for e in images] == [(0, 4, 5), (1, 4, 5), (2, 4, 5)]
    histogram = events.Histograms("weights")[-1].histogram_value
    assert (histogram.min, histogram.max, histogram.num) == (0, 3, 4)
    assert (histogram.sum, histogram.sum_squares) == (5, 11)
    assert sum(histogram.bucket) == 4


def test_an_unused_tensorboard_writer_writes_nothing(tmp_path):
    TensorboardXWriter(str(tmp_path / "logs")).close()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def printed(monkeypatch):
    """The messages of the printer, whoever set up detectron2's logger before."""
    messages = []
    logger = logging.getLogger("detectron2.utils.events")
    monkeypatch.setattr(logger, "info", lambda text, *args: messages.append(text % args))
    return messages


def test_the_printed_line(printed, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    printer = CommonMetricPrinter(max_iter=100, window_size=20)
    with EventStorage(9) as storage:
        storage.put_scalars(total_loss=1.23456, loss_ce=3, **{"[metric]x": 0.5}, other=1)
        storage.put_scalars(time=2.0, data_time=0.25)
        storage.put_scalar("lr", 1e-4, smoothing_hint=False)
        printer.write()
        assert storage.latest()["eta_seconds"] == (180.0, 9)
    expected = (
        "eta: 0:03:00  iter: 9  total_loss: 1.235  loss_ce: 3  [metric]x: 0.5  time: 2.0000  "
        "last_time: 2.0000  data_time: 0.2500  last_data_time: 0.2500 lr: 0.0001"
    )
    assert [" ".join(m.split()) for m in printed] == [" ".join(expected.split())]


def test_the_printed_line_of_a_run_that_tells_little(printed, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with EventStorage(0) as storage:
        CommonMetricPrinter().write()
        assert "eta_seconds" not in storage.latest()
        printer = CommonMetricPrinter(max_iter=5)
        printer.write()
        storage.iter = 2
        printer.write()  # now there is a time between two lines
        storage.iter = 5
        printer.write()  # the run is over
    assert [" ".join(m.split()) for m in printed[:2]] == ["iter: 0 lr: N/A"] * 2
    assert printed[2].split() == ["eta:", "0:00:00", "iter:", "2", "lr:", "N/A"]
    assert len(printed) == 3


def test_a_writer_has_to_write():
    with pytest.raises(NotImplementedError):
        EventWriter().write()
    EventWriter().close()
