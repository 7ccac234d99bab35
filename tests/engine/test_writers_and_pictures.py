"""What a run leaves: metrics that go on after a resume, the console's line, the pictures."""

import json
import re
import sys
import time

import numpy as np
import pytest
from detectron2.config import get_cfg
from detectron2.data import Metadata, MetadataCatalog
from detectron2.utils.events import EventStorage
from PIL import Image

from mask2former.config import add_maskformer2_config
from mask2former.curves import read_run
from mask2former.engine import writers
from mask2former.engine.pictures import Classes, _draw_rows, coloured
from mask2former.engine.run import summary
from mask2former.engine.trainer import write_results
from mask2former.engine.writers import (
    ConsoleWriter,
    ModelZooWriter,
    build_writers,
    keep_lines_before,
    write_period,
)


def test_short_runs_have_a_line_for_each_iteration():
    assert [write_period(n) for n in (1, 500, 2000, 90000)] == [1, 1, 2, 20]


def test_resumed_metrics_have_each_iteration_once(tmp_path):
    path = tmp_path / "metrics.json"
    lines = [json.dumps({"iteration": i, "total_loss": 1.0}) + "\n" for i in range(6)]
    path.write_text("".join(lines) + '{"iteration": 6, "tot')
    keep_lines_before(str(path), 4)
    assert path.read_text() == "".join(lines[:4])
    path.write_text('{"iteration": 0, "to\0\n' + "".join(lines))  # of a machine that lost power
    keep_lines_before(str(path), 4)
    assert path.read_text() == "".join(lines[:4])


def test_a_new_run_begins_new_metrics(tmp_path, capsys):
    (tmp_path / "metrics.json").write_text('{"iteration": 3}\n')
    cfg = get_cfg()
    add_maskformer2_config(cfg)
    cfg.OUTPUT_DIR = str(tmp_path)
    with EventStorage() as storage:
        built = build_writers(cfg, start_iter=0, max_iter=10)
        storage.put_scalars(total_loss=2.5, data_time=0.5)
        for writer in built:
            writer.write()
            writer.close()
    line = json.loads((tmp_path / "metrics.json").read_text())
    assert line == {"iteration": 0, "total_loss": 2.5, "data_time": 0.5}
    assert list(tmp_path.glob("events.out.tfevents.*"))
    assert " Iteration: 0  rank : 0  train.loss : 2.5  train.ips : " in log_of(tmp_path)
    assert capsys.readouterr().out == ""  # MODEL_ZOO_LOG is off


def log_of(folder):
    return (folder / "log.txt").read_text()


# Facts of published logs: `rank : 0  train.loss : 44.6  train.ips : 0.19 imgs/s train.total_time :
# 5.28 `, where the time is that of the iteration; and what their script searches for.
ZOO_LINE = re.compile(
    r"TCAPPDLL \d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{6})? - Epoch: 0 Iteration: (\d+)  rank : 0  "
    r"train\.loss : (\S+)  train\.ips : (\S+) imgs/s train\.total_time : (\S+) *\n"
)
ZOO_LOSS = re.compile(r"rank : 0  train.loss : ([\d\.e-]+)")


def zoo_run(folder, losses, period=1, start_iter=0, on_console=False):
    """A run of 8 images an iteration that took 2 seconds; None is a loss that was not finite."""
    with EventStorage(start_iter) as storage:
        writer = ModelZooWriter(str(folder / "log.txt"), 8, start_iter, on_console)
        for i, loss in enumerate(losses, start_iter):
            storage.iter = i
            storage.put_scalars(data_time=0.1, time=2.0)
            if loss is not None:
                storage.put_scalar("total_loss", loss)
            if (i + 1) % period == 0:
                writer.write()
        storage.iter += 1
        storage.put_scalar("sem_seg/IoU", 3.0)
        writer.write()
        writer.close()
    return [tuple(map(float, x)) for x in ZOO_LINE.findall(log_of(folder))]


def test_the_model_zoos_line(tmp_path, capsys):
    (tmp_path / "log.txt").write_text("what the loggers wrote\n")
    lines = zoo_run(tmp_path, [3.25, 2.5])
    assert lines == [(0, 3.25, 4.0, 2.0), (1, 2.5, 4.0, 2.0)]
    assert log_of(tmp_path).startswith("what the loggers wrote\nTCAPPDLL ")
    assert log_of(tmp_path).count("TCAPPDLL") == 2
    assert ZOO_LOSS.findall(log_of(tmp_path)) == ["3.25", "2.5"]
    assert capsys.readouterr().out == ""


def test_the_model_zoos_line_goes_on_after_a_resume(tmp_path):
    zoo_run(tmp_path, [3.0, 2.0, 2.5])
    lines = zoo_run(tmp_path, [2.25, 2.0], start_iter=2)
    assert [line[:2] for line in lines[3:]] == [(2, 2.25), (3, 2.0)]
    loss = read_run(str(tmp_path / "log.txt"))["total_loss"]
    assert loss.iterations.tolist() == [0, 1, 2, 3]
    assert loss.values.tolist() == [3.0, 2.0, 2.25, 2.0]


def test_the_model_zoos_line_is_a_median_over_a_period(tmp_path):
    lines = zoo_run(tmp_path, [9.0, 1.0, 2.0, 5.0, 4.0, 9.0], period=3)
    assert [line[:2] for line in lines] == [(2, 2.0), (5, 5.0)]


def test_the_model_zoos_line_shows_what_is_not_finite(tmp_path):
    losses = [1.0, None, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, None]
    found = [line[1] for line in zoo_run(tmp_path, losses, period=3)]
    assert np.isnan(found).tolist() == [True, False, True]


def test_iterations_that_nobody_timed_have_a_speed_too(tmp_path):
    with EventStorage() as storage:
        writer = ModelZooWriter(str(tmp_path / "log.txt"), 8, 0, False)
        storage.put_scalars(data_time=0.1, total_loss=1.0)
        time.sleep(0.02)
        writer.write()
    ((ips, seconds),) = ((float(x[2]), float(x[3])) for x in ZOO_LINE.findall(log_of(tmp_path)))
    assert 0.02 <= seconds < 5 and ips == pytest.approx(8 / seconds)


def test_the_model_zoos_line_on_the_console(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(writers.importlib.util, "find_spec", lambda name: None)
    zoo_run(tmp_path, [3.0, None], on_console=True)
    printed = [(int(i), loss) for i, loss, *_ in ZOO_LINE.findall(capsys.readouterr().out)]
    assert printed == [(0, "3.0"), (1, "nan")]


ZOO_LOGGER = """
class Verbosity:
    OFF, DEFAULT, VERBOSE = -1, 0, 1


class StdOutBackend:
    def __init__(self, verbosity):
        self.verbosity, self.units = verbosity, {}


class Logger:
    def __init__(self, backends):
        (self.backend,) = backends

    def metadata(self, metric, metadata):
        self.backend.units[metric] = metadata["unit"]

    def log(self, step, data, verbosity=1):
        assert self.backend.verbosity >= verbosity
        units = self.backend.units
        fields = [f"{name} : {value} {units.get(name, '')}" for name, value in data.items()]
        print("TCAPPDLL of the zoo - Epoch: {} Iteration: {} ".format(*step), " ".join(fields))
"""


def test_the_console_is_the_zoos_loggers_if_there_is_one(tmp_path, capsys, monkeypatch):
    (tmp_path / "tcap_dllogger.py").write_text(ZOO_LOGGER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tcap_dllogger", raising=False)
    assert zoo_run(tmp_path, [3.0, 2.0], on_console=True) == [
        (0, 3.0, 4.0, 2.0),
        (1, 2.0, 4.0, 2.0),
    ]
    sys.modules.pop("tcap_dllogger")
    assert capsys.readouterr().out.splitlines() == [
        f"TCAPPDLL of the zoo - Epoch: 0 Iteration: {i}  rank : 0  train.loss : {loss}  "
        "train.ips : 4.0 imgs/s train.total_time : 2.0 "
        for i, loss in ((0, 3.0), (1, 2.0))
    ]


def test_a_broken_zoo_logger_costs_no_run(tmp_path, capsys, monkeypatch, caplog):
    (tmp_path / "tcap_dllogger.py").write_text("raise ImportError('libzoo.so is missing')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tcap_dllogger", raising=False)
    zoo_run(tmp_path, [3.0], on_console=True)
    assert "train.loss : 3.0" in capsys.readouterr().out
    assert "libzoo.so is missing" in caplog.text


def test_console_line(caplog):
    with EventStorage() as storage, caplog.at_level("INFO", logger="mask2former"):
        storage.put_scalars(total_loss=10.0, loss_ce=4.0, loss_ce_0=3.0, data_time=0.25, time=2.0)
        storage.put_scalars(lr=1e-4, max_mem_mb=123.4, smoothing_hint=False)
        ConsoleWriter(max_iter=31).write()
    line = caplog.messages[0]
    for part in ("iter: 1/31", "total_loss: 10", "loss_ce: 4", "eta: 0:01:00", "time: 2.0000"):
        assert part in line
    assert "data_time: 0.2500" in line and "lr: 0.0001" in line and "max_mem: 123M" in line
    assert "loss_ce_0" not in line


def test_colours_of_classes_and_of_what_has_none():
    colours = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)
    picture = coloured(np.array([[0, 1, 255]]), colours)
    assert picture.tolist() == [[[1, 2, 3], [4, 5, 6], [0, 0, 0]]]


def test_rows_of_predictions_hold_the_classes_colours(tmp_path):
    metadata = MetadataCatalog.get("mini_cityscapes_fine_sem_seg_val")
    image = np.full((64, 128, 3), 200, np.uint8)
    truth, prediction = np.zeros((64, 128), int), np.full((64, 128), 13)
    classes = Classes.of(metadata, 19)
    rows = [(image, *(coloured(x, classes.colours) for x in (truth, prediction)))] * 2
    _draw_rows(rows, classes, {0, 13}, str(tmp_path / "rows.png"))
    picture = np.asarray(Image.open(tmp_path / "rows.png").convert("RGB")).reshape(-1, 3)
    shares = [(picture == np.array(metadata.stuff_colors[i])).all(1).mean() for i in (0, 13, 5)]
    assert shares[0] > 0.1 and shares[1] > 0.1 and shares[2] == 0


def test_classes_without_colours_get_some():
    classes = Classes.of(Metadata(stuff_classes=[str(i) for i in range(150)]), 150)
    assert classes.colours.shape == (150, 3)
    assert len(np.unique(classes.colours[:4], axis=0)) == 4
    assert Classes.of(Metadata(), 3).names == ["0", "1", "2"]


def test_summary_has_the_main_number_of_each_task():
    sem_seg = {"IoU": 69.382, "IoU-road": 96.0, "IoU-train": float("nan")}
    assert summary({}) == ""
    assert summary({"sem_seg": sem_seg}) == "mIoU 69.38 over 1 classes"
    results = {"sem_seg": {"mIoU": 50.0}, "segm": {"AP": 10.5, "AP50": 20.0}, "bbox": {"AP": 9.0}}
    results |= {"panoptic_seg": {"PQ": 46.1, "PQ_th": 15.0}, "sem_seg_TTA": {"mIoU": 51.0}}
    assert summary(results) == (
        "PQ 46.10, AP 10.50, mIoU 50.00, mIoU 51.00 with test-time augmentation"
    )
    assert summary({"one": results, "two": {}, "one_TTA": {"segm": {"AP": 1.0}}}) == (
        f"one: {summary(results)}; one_TTA: AP 1.00"
    )


def test_results_are_json_without_nan(tmp_path):
    path = tmp_path / "inference" / "results.json"
    write_results({"sem_seg": {"IoU": np.float64(50), "IoU-train": float("nan")}}, str(path))
    assert json.loads(path.read_text()) == {"sem_seg": {"IoU": 50.0, "IoU-train": None}}
