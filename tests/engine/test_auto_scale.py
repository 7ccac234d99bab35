"""SOLVER.AUTO_SCALE: what was meant for one batch size, for another."""

import pytest
from detectron2.engine import DefaultTrainer

from mask2former.config import load_config
from mask2former.engine.auto_scale import auto_scale

SCHEDULE = (
    *("SOLVER.BASE_LR", "0.0001", "SOLVER.MAX_ITER", "90000", "SOLVER.STEPS", "(60000,80000)"),
    *("SOLVER.WARMUP_ITERS", "10", "SOLVER.CHECKPOINT_PERIOD", "5000", "TEST.EVAL_PERIOD", "5000"),
)


def config(*opts, ims=2):
    opts = (*SCHEDULE, "SOLVER.IMS_PER_BATCH", str(ims), "SOLVER.AUTO_SCALE", "True", *opts)
    return load_config("quick_start.yaml", opts)


def schedule(cfg):
    solver = cfg.SOLVER
    numbers = (solver.MAX_ITER, solver.WARMUP_ITERS, solver.CHECKPOINT_PERIOD)
    return solver.BASE_LR, *numbers, *solver.STEPS, cfg.TEST.EVAL_PERIOD


def test_an_eighth_of_the_images_takes_eight_times_the_iterations():
    cfg = config()
    auto_scale(cfg)
    expected = (0.0000125, 720000, 80, 40000, 480000, 640000, 40000)
    assert schedule(cfg) == pytest.approx(expected)


@pytest.mark.parametrize("ims, processes", [(32, 2), (48, 3), (112, 7)])
def test_it_scales_as_detectron2_does_by_processes(ims, processes):
    ours = config(ims=ims)
    auto_scale(ours)
    # 16 images in one process: in more processes, which detectron2 gives as many each
    theirs = config("SOLVER.REFERENCE_WORLD_SIZE", "1", ims=16)
    theirs = DefaultTrainer.auto_scale_workers(theirs, processes)
    assert ims == theirs.SOLVER.IMS_PER_BATCH
    assert schedule(ours) == pytest.approx(schedule(theirs))


def test_each_change_is_a_line(caplog):
    with caplog.at_level("INFO", "mask2former"):
        auto_scale(config())
    assert "AUTO_SCALE from 16 to 2 images an iteration" in caplog.text
    lines = [record.getMessage().split() for record in caplog.records]
    assert ["SOLVER.MAX_ITER", "90000", "->", "720000"] in lines
    assert len(lines) == 1 + 6


def test_the_saved_config_is_not_scaled_again(tmp_path):
    cfg = config()
    auto_scale(cfg)
    (tmp_path / "config.yaml").write_text(cfg.dump())
    for saved in (cfg, load_config(str(tmp_path / "config.yaml"))):
        before = schedule(saved)
        auto_scale(saved)
        assert schedule(saved) == before
    larger = load_config(str(tmp_path / "config.yaml"), ["SOLVER.IMS_PER_BATCH", "16"])
    auto_scale(larger)  # to a third size, from that of the saved one
    assert schedule(larger) == pytest.approx(schedule(config()))


def test_off_it_does_nothing_and_0_stays_never():
    cfg = config("SOLVER.AUTO_SCALE", "False")
    auto_scale(cfg)
    assert schedule(cfg) == schedule(config())
    cfg = config("SOLVER.WARMUP_ITERS", "1", "TEST.EVAL_PERIOD", "0", ims=64)
    auto_scale(cfg)
    assert (cfg.SOLVER.WARMUP_ITERS, cfg.TEST.EVAL_PERIOD) == (1, 0)


@pytest.mark.parametrize(
    "opts, expected",
    [
        (("SOLVER.REFERENCE_WORLD_SIZE", "8"), "REFERENCE_WORLD_SIZE=8 would both scale"),
        (("SOLVER.REFERENCE_IMS_PER_BATCH", "0"), "SOLVER.REFERENCE_IMS_PER_BATCH=0; set it to"),
    ],
)
def test_what_cannot_be_scaled(opts, expected):
    with pytest.raises(ValueError) as error:
        auto_scale(config(*opts))
    assert expected in str(error.value) and "\n" not in str(error.value)
