"""Series of runs from each kind of log, in the spelling of the program that writes it."""

import json

import numpy as np
import pytest

from mask2former.curves import read_run

ZOO = (
    "TCAPPDLL 2025-05-15 14:20:10.9303{i:02d} - Epoch: {epoch} Iteration: {i}  rank : {rank}  "
    "train.loss : {loss}  train.ips : 12.5 imgs/s train.total_time : 1.28 \n"
)
MMENGINE = """\
06/30 15:40:26 - mmengine - INFO - Config:
data_preprocessor = dict(
    mean=[123.675, 116.28, 103.53], loss_cls=dict(loss_weight=2.0))
08/12 11:40:22 - mmengine - INFO - Iter(train) [  50/2000]  base_lr: 1.0000e-04 lr: 9.8e-06  \
eta: 0:11:24  time: 0.2934  data_time: 0.0044  memory: 3725  grad_norm: 3.3291  loss: 27.9087  \
decode.loss_cls: 2.5  decode.loss_mask: 1.5  decode.d0.loss_cls: 3.0  decode.d0.loss_mask: 0.5
08/12 11:41:22 - mmengine - INFO - Iter(train) [ 100/2000]  base_lr: 1.0000e-04 lr: 9.6e-06  \
eta: 12 days, 0:10:24  time: 0.5  data_time: 0.0044  memory: 3725  grad_norm: nan  loss: nan  \
decode.loss_cls: nan  decode.loss_mask: 1.25  decode.d0.loss_cls: 3.0  decode.d0.loss_mask: 0.5
08/12 11:41:23 - mmengine - INFO - Saving checkpoint at 100 iterations
08/12 11:42:00 - mmengine - INFO - Iter(val) [500/500]    aAcc: 96.0200  mIoU: 25.2300  \
mAcc: 27.6000  data_time: 0.0013  time: 0.0191
"""
MMCV = (
    "2022-05-22 03:27:54,266 - mmseg - INFO - Iter [50/320000]\tlr: 9.799e-07, "
    "eta: 2 days, 18:10:31, time: 0.745, data_time: 0.010, memory: 7999, decode.loss_seg: 4.1118, "
    "decode.acc_seg: 0.2411, aux.loss_seg: 1.6321, aux.acc_seg: 0.9252, loss: 5.7440\n"
    "2022-05-22 03:30:31,241 - mmseg - INFO - Iter(val) [10]\tmIoU: 0.0492, mAcc: 0.0714\n"
)
CONSOLE = """\
[11/21 16:10:15 mask2former.engine.output]: 1 process(es) on cpu
[11/21 16:10:36 mask2former.engine.writers]: iter: 20/30  loss_ce: 5.073  loss_mask: 1.408  \
total_loss: 42.42  eta: 0:00:07  time: 0.7924  data_time: 0.0102  lr: 0.0007706  max_mem: 850M
[11/21 16:10:43 mask2former.engine.writers]: iter: 30/30  loss_ce: 3.2  loss_mask: 1.39  \
total_loss: 37.77  eta: 0:00:00  time: 0.5  data_time: 0.0096  lr: 9.367e-05  max_mem: 850M
"""


@pytest.fixture
def read(tmp_path):
    def from_text(text):
        (tmp_path / "some.file").write_text(text)
        return read_run(str(tmp_path / "some.file"))

    return from_text


def pairs(series):
    return list(zip(series.iterations.tolist(), series.values.tolist()))


def json_lines(*lines):
    return "".join(json.dumps(line) + "\n" for line in lines)


def step(iteration, total_loss=1.0, **more):
    return {"iteration": iteration, "total_loss": total_loss, "data_time": 0.1, **more}


def test_metrics_json(read):
    run = read(
        json_lines(
            step(0, 9.0, loss_ce=1.0, loss_ce_0=2.0, loss_ce_10=3.0, loss_dice=3.0, lr=0.1),
            step(1, 8.0, loss_ce=1.0, time=0.5, lr=0.2),
            {"iteration": 1, "sem_seg/IoU": 40.0, "sem_seg/IoU-road": 90.0, "sem_seg/IoU_sup": 5.0},
            {"iteration": 2, "panoptic_seg/PQ": 30.0, "a/segm/AP": 1.0, "b/segm/AP": 2.0},
        )
    )
    assert {name: pairs(series) for name, series in run.items()} == {
        "total_loss": [(0, 9.0), (1, 8.0)],
        "loss_ce": [(0, 6.0), (1, 1.0)],
        "loss_dice": [(0, 3.0)],
        "lr": [(0, 0.1), (1, 0.2)],
        "seconds": [(1, 0.5)],
        "mIoU": [(1, 40.0)],
        "PQ": [(2, 30.0)],
        "AP a": [(2, 1.0)],
        "AP b": [(2, 2.0)],
    }


def test_a_resumed_run_takes_back_what_it_did_again(read):
    lines = [step(i, float(i)) for i in (0, 1, 2, 3, 4)] + [step(i, 10.0 + i) for i in (2, 3)]
    text = json_lines(*lines) + '{"iteration": 4, "total_lo'  # killed
    assert pairs(read(text)["total_loss"]) == [(0, 0.0), (1, 1.0), (2, 12.0), (3, 13.0)]


def test_a_loss_that_was_not_finite_is_nan(read):
    lost = {"iteration": 1, "data_time": 0.1, "lr": 0.1}  # as metrics.json has it
    assert np.isnan(read(json_lines(step(0), lost, step(2)))["total_loss"].values).tolist() == [
        *(False, True, False)
    ]
    assert np.isnan(read(json_lines(lost))["total_loss"].values).all()
    assert np.isinf(read(json_lines(step(0, float("inf"))))["total_loss"].values).all()


def test_a_folder_is_its_metrics_and_the_warnings_of_its_log(tmp_path):
    (tmp_path / "metrics.json").write_text(json_lines(step(19), step(39), step(59)))
    (tmp_path / "log.txt").write_text(
        "[11/21 16:10:15] mask2former.engine.train_step WARNING: iteration 33: loss_ce not finite "
        "on a/loss.png; this step is left out\n"
        "[11/21 16:10:16] mask2former.engine.train_step WARNING: iteration 34: grad_norm not "
        "finite on a/b.png; this step is left out\n"
    )
    loss = read_run(str(tmp_path))["total_loss"]
    assert loss.iterations.tolist() == [19, 33, 39, 59]
    assert np.isnan(loss.values).tolist() == [False, True, False, False]


def test_a_resumed_run_takes_back_its_warnings_too(read):
    start = "[11/21 16:10:15] mask2former.engine.trainer INFO: SEED 1, from iteration {} to 60\n"
    warning = "[11/21 16:10:15] x WARNING: iteration {}: loss_ce not finite on a.png; left out\n"
    line = "[11/21 16:10:36] x INFO: iter: {}/60  total_loss: 2.5  lr: 0.1\n"
    first = start.format(0) + warning.format(5) + line.format(20) + warning.format(25)
    again = start.format(20) + line.format(40)
    loss = read(first + again)["total_loss"]
    assert loss.iterations.tolist() == [5, 19, 39]
    assert np.isnan(loss.values).tolist() == [True, False, False]


@pytest.mark.parametrize("colour", ["", "\x1b[32m"])
def test_our_console(read, colour):
    run = read("\n".join(colour + line for line in CONSOLE.splitlines()))
    assert pairs(run["total_loss"]) == [(19, 42.42), (29, 37.77)]
    assert pairs(run["loss_ce"]) == [(19, 5.073), (29, 3.2)]
    assert pairs(run["lr"]) == [(19, 0.0007706), (29, 9.367e-05)]
    assert pairs(run["seconds"]) == [(19, 0.7924), (29, 0.5)]


def test_detectron2s_own_console_counts_from_zero(read):
    run = read(
        "[06/01 10:00:00 d2.utils.events]:  eta: 1 day, 0:10:00  iter: 19  total_loss: 52.3  "
        "loss_ce: 2  loss_ce_0: 3.5  time: 0.4012  last_time: 0.39  lr: 1.9981e-05  max_mem: 8M\n"
    )
    assert pairs(run["total_loss"]) == [(19, 52.3)] and pairs(run["loss_ce"]) == [(19, 5.5)]
    assert pairs(run["lr"]) == [(19, 1.9981e-05)] and pairs(run["seconds"]) == [(19, 0.4012)]


def test_mmengine(read):
    run = read(MMENGINE)
    assert pairs(run["total_loss"])[0] == (49, 27.9087) and run["total_loss"].iterations[1] == 99
    assert np.isnan(run["total_loss"].values[1]) and np.isnan(run["decode.loss_cls"].values[1])
    assert pairs(run["decode.loss_mask"]) == [(49, 2.0), (99, 1.75)]
    assert run["decode.loss_cls"].values[0] == 5.5
    assert pairs(run["lr"]) == [(49, 9.8e-06), (99, 9.6e-06)]
    assert pairs(run["seconds"]) == [(49, 0.2934), (99, 0.5)]
    assert pairs(run["mIoU"]) == [(99, 25.23)]


def test_mmengine_by_epochs(read):
    line = (
        "06/30 15:44:54 - mmengine - INFO - Epoch(train)  [{}][  50/117266]  lr: 1e-05  loss: 2.0\n"
    )
    run = read(line.format(1) + line.format(2))
    assert run["total_loss"].iterations.tolist() == [49, 117266 + 49]


def test_mmcv(read):
    run = read(MMCV)
    assert pairs(run["total_loss"]) == [(49, 5.744)] and pairs(run["lr"]) == [(49, 9.799e-07)]
    assert pairs(run["decode.loss_seg"]) == [(49, 4.1118)]
    assert pairs(run["aux.loss_seg"]) == [(49, 1.6321)] and pairs(run["mIoU"]) == [(49, 0.0492)]


def test_scalars_json(read):
    train = {"lr": 0.02, "data_time": 0.1, "loss": 2.0, "decode.loss_ce": 2.0, "time": 0.4}
    run = read(
        json_lines(
            train | {"iter": 50, "step": 50},
            train | {"iter": 100, "step": 100, "loss": 1.0},
            {"mIoU": 30.0, "data_time": 0.2, "time": 0.3, "step": 0},  # of older versions
            {"coco/segm_mAP": 0.25, "step": 1},
        )
    )
    assert pairs(run["total_loss"]) == [(49, 2.0), (99, 1.0)]
    assert pairs(run["mIoU"]) == [(99, 30.0)] and pairs(run["mask mAP"]) == [(99, 25.0)]
    assert pairs(run["seconds"])[0] == (49, 0.4)


def test_mmcvs_json_by_epochs(read):
    lines = [{"mode": "train", "epoch": e, "iter": i, "loss": 1.0} for e in (1, 2) for i in (5, 10)]
    run = read(json_lines({"env_info": "a"}, *lines))
    assert run["total_loss"].iterations.tolist() == [4, 9, 14, 19]
    lines = [{"mode": "train", "epoch": 1, "iter": i, "loss": 1.0} for i in (1, 2, 3)]
    run = read(json_lines({"env_info": "a", "seed": 0}, *lines))
    assert run["total_loss"].iterations.tolist() == [0, 1, 2]


def zoo(iterations, loss=1.5, rank=0, epoch=0):
    return "".join(ZOO.format(i=i, epoch=epoch, rank=rank, loss=loss + i) for i in iterations)


def test_zoo_lines_among_others(read):
    other = " Torch-SDAA   | 2.1.1b0\n0%|  | 0/100\r"
    text = other + zoo(range(48)) + other + zoo([48, 49]) + MMENGINE
    run = read(text)
    # Each iteration's own, not mmengine's mean of 50.
    assert pairs(run["total_loss"]) == [(i, 1.5 + i) for i in range(50)]
    assert pairs(run["images_per_second"])[0] == (0, 12.5)
    assert pairs(run["decode.loss_mask"])[0] == (49, 2.0) and pairs(run["mIoU"]) == [(99, 25.23)]


def test_of_several_ranks_the_first_is_read(read):
    glued = zoo([0]).rstrip("\n") + zoo([0], loss=7.0, rank=3) + "\n"
    run = read(glued + zoo([1], loss=7.0, rank=1) + zoo([1]))
    assert pairs(run["total_loss"]) == [(0, 1.5), (1, 2.5)]


def test_zoo_lines_that_count_anew_in_each_epoch(read):
    text = zoo(range(3), epoch=1) + zoo(range(3), epoch=2) + zoo(range(3), epoch=3)
    assert read(text)["total_loss"].iterations.tolist() == list(range(9))
    text += zoo(range(3), epoch=2, loss=10.0)  # resumed
    assert pairs(read(text)["total_loss"])[2:] == [(2, 3.5), (3, 10.0), (4, 11.0), (5, 12.0)]
    # One epoch, but again: a run that was resumed.
    assert pairs(read(zoo(range(5)) + zoo([2], loss=10.0))["total_loss"])[2:] == [(2, 12.0)]


def test_zoo_lines_hold_what_is_not_finite(read):
    text = zoo([0]) + ZOO.format(i=1, epoch=0, rank=0, loss="nan") + zoo([2])
    assert np.isnan(read(text)["total_loss"].values).tolist() == [False, True, False]


def test_the_zoos_logger_into_a_file(read):
    def line(kind, **more):
        return f"TCAPPDLL {json.dumps({'timestamp': '1.5', 'type': kind, **more})}\n"

    data = {"rank": "0", "train.loss": "0.625", "train.ips": "10.0", "data.shape": "[16, 3]"}
    text = line("METADATA", metric="train.loss", metadata={"unit": ""})
    text += line("LOG", step=[0, 7], data=str(data)) + line("LOG", step="PARAMETER", data="{}")
    text += line("LOG", step=[0, 8], data=str(data | {"train.loss": "nan"}))
    run = read(text + 'TCAPPDLL {"type": "LOG", "st')
    assert run["total_loss"].iterations.tolist() == [7, 8]
    assert run["total_loss"].values[0] == 0.625 and np.isnan(run["total_loss"].values[1])
    assert pairs(run["images_per_second"]) == [(7, 10.0), (8, 10.0)]


def test_what_has_no_losses_is_said(read, tmp_path):
    with pytest.raises(ValueError, match=r"some.file: no losses found; what is read is"):
        read("This is a letter.\nIts iteration 3: no loss.\n")
    with pytest.raises(ValueError, match=r"no losses found"):
        read(json_lines({"a": [1, 2]}, {"iteration": 3, "sem_seg/IoU": 1.0}))
    with pytest.raises(FileNotFoundError, match=r"metrics.json: no such file; name the OUTPUT_DIR"):
        read_run(str(tmp_path))
