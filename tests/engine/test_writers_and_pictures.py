"""What a run leaves: metrics that go on after a resume, the console's line, the pictures."""

import json

import numpy as np
from detectron2.data import Metadata, MetadataCatalog
from detectron2.utils.events import EventStorage
from PIL import Image

from mask2former.engine.pictures import (
    Classes,
    _draw_rows,
    coloured,
    draw_loss_curve,
    loss_curves,
    smoothed,
)
from mask2former.engine.run import summary
from mask2former.engine.trainer import write_results
from mask2former.engine.writers import (
    ConsoleWriter,
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


def test_a_new_run_begins_new_metrics(tmp_path):
    (tmp_path / "metrics.json").write_text('{"iteration": 3}\n')
    with EventStorage() as storage:
        writers = build_writers(str(tmp_path), start_iter=0, max_iter=10)
        storage.put_scalar("total_loss", 2.5)
        for writer in writers:
            writer.write()
            writer.close()
    line = json.loads((tmp_path / "metrics.json").read_text())
    assert line == {"iteration": 0, "total_loss": 2.5}
    assert list(tmp_path.glob("events.out.tfevents.*"))


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


def test_smoothing_is_the_mean_of_the_last_ones():
    assert smoothed([1.0, 3.0, 5.0, 7.0], window=2).tolist() == [1.0, 2.0, 4.0, 6.0]


def test_smoothing_leaves_out_what_is_not_finite():
    values = [1.0, float("nan"), 5.0, float("inf"), 7.0, 9.0]
    assert smoothed(values, window=2).tolist() == [1.0, 1.0, 5.0, 5.0, 7.0, 8.0]
    assert np.isnan(smoothed([float("nan"), 1.0])).tolist() == [True, False]


def test_parts_of_the_loss_are_those_of_all_lines():
    lines = [
        {"total_loss": 1.0, "loss_ce": 1.0},
        {"total_loss": 9.0, "loss_ce": 1.0, "loss_ce_0": 2.0, "loss_ce_10": 3.0, "loss_dice": 3.0},
    ]
    curves = loss_curves(lines)
    assert curves["total_loss"] == [1.0, 9.0] and curves["loss_ce"] == [1.0, 6.0]
    assert np.isnan(curves["loss_dice"][0]) and curves["loss_dice"][1] == 3.0
    assert list(curves) == ["total_loss", "loss_ce", "loss_dice"]


def test_loss_curve_is_a_picture(tmp_path):
    lines = [
        {"iteration": i, "total_loss": 9.0 / (i + 1), "loss_ce": 3.0, "loss_ce_0": 2.0, "lr": 0.1}
        for i in range(30)
    ]
    metrics = tmp_path / "metrics.json"
    # An evaluation has a line of its own.
    metrics.write_text("".join(json.dumps(x) + "\n" for x in [*lines, {"iteration": 30, "IoU": 1}]))
    draw_loss_curve(str(metrics), str(tmp_path / "curve.png"))
    picture = np.asarray(Image.open(tmp_path / "curve.png").convert("RGB"))
    assert picture.shape[0] > 300 and len(np.unique(picture.reshape(-1, 3), axis=0)) > 20


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
