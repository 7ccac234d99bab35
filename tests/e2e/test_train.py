"""Whole runs: train, evaluate, resume, in one process and in several."""

import os
import signal

import pytest
import torch
from PIL import Image
from tiny_run import wait_for_iterations

AGREE = ("MODEL.MASK_FORMER.CLASS_NORM_OVER_RANKS", "True")


def close(one, other, rel=1e-4):
    assert one.keys() == other.keys()
    assert other == pytest.approx(one, rel=rel)


def checkpoint(path):
    return torch.load(path, map_location="cpu", weights_only=True)


def test_a_run_leaves_what_it_says_and_evaluates_again_to_the_same(workplace):
    done = workplace.run()
    assert done.returncode == 0, done.stderr
    output = workplace.output
    for name in ("loss_curve.png", "predictions.png"):
        with Image.open(output / name) as picture:
            assert min(picture.size) > 200
    for name in ("metrics.json", "model_final.pth", "config.yaml", "log.txt"):
        assert (output / name).stat().st_size > 0
    assert list(output.glob("events.out.tfevents.*"))
    for said in ("metrics.json", "loss_curve.png", "predictions.png", "model_final.pth", "mIoU"):
        assert said in done.stdout.split("Saving checkpoint")[-1]
    assert list(workplace.losses()) == [0, 1, 2, 3]

    trained = workplace.results()
    assert set(trained) == {"sem_seg", "sem_seg_pixel"}
    weights = ("MODEL.WEIGHTS", "output/model_final.pth")
    workplace.main("--eval-only", *weights, "OUTPUT_DIR", "one")
    assert workplace.results("one") == trained
    done = workplace.run("--eval-only", "--num-gpus", "2", *weights, "OUTPUT_DIR", "two")
    assert done.returncode == 0, done.stderr
    assert workplace.results("two") == trained


# Ctrl-C interrupts all processes, `kill -INT` the one that has started the others.
@pytest.mark.parametrize(
    "num_processes, kill", [("1", os.killpg), ("2", os.killpg), ("2", os.kill)]
)
def test_an_interrupt_is_a_sentence_and_ends_all_processes(workplace, num_processes, kill):
    opts = ("SOLVER.MAX_ITER", "10000", "DATASETS.TEST", "()", "DATALOADER.NUM_WORKERS", "1")
    process = workplace.start("--num-gpus", num_processes, *opts, own_group=True)
    wait_for_iterations(process, workplace, 2)
    kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)  # until the last one has closed its output
    assert process.returncode == 130
    resume = "--resume goes on from the last checkpoint, if there is one"
    assert f"train_net.py: interrupted; {resume}\n" in err


def test_resume_after_a_kill_is_the_uninterrupted_run(workplace):
    opts = ("SOLVER.MAX_ITER", "8", "SOLVER.CHECKPOINT_PERIOD", "3", "DATASETS.TEST", "()")
    # The seed is drawn, and workers load ahead: neither may matter.
    opts = (*opts, "SEED", "-1", "DATALOADER.NUM_WORKERS", "1")
    process = workplace.start(*opts)
    wait_for_iterations(process, workplace, 5)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    before = workplace.losses()
    assert not (workplace.output / "model_final.pth").exists()
    seed = checkpoint(workplace.output / "model_0000002.pth")["trainer"]["_trainer"]["seed"]

    workplace.main("--resume", *opts)
    resumed = workplace.losses()
    workplace.main(*opts, "SEED", str(seed), "OUTPUT_DIR", "whole")
    assert list(resumed) == list(range(8))
    assert resumed == workplace.losses("whole")
    assert {i: resumed[i] for i in before} == before
    one, other = (
        checkpoint(workplace.folder / folder / "model_final.pth")["model"]
        for folder in ("output", "whole")
    )
    assert all(torch.equal(one[key], other[key]) for key in other)


def test_two_processes_are_one_with_twice_the_batch(workplace):
    # Batch norm over both processes, and everything learns. By SGD: Adam makes whole steps of
    # gradients that are zero up to rounding.
    opts = ("MODEL.BACKBONE.FREEZE_AT", "0", "MODEL.RESNETS.NORM", "SyncBN", *AGREE)
    opts = (*opts, "SOLVER.OPTIMIZER", "SGD", "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", "0.1")
    opts = (*opts, "DATASETS.TEST", "()", "SOLVER.MAX_ITER", "3", "SOLVER.BASE_LR", "0.1")
    workplace.main(*opts, "OUTPUT_DIR", "one")
    done = workplace.run("--num-gpus", "2", *opts, "OUTPUT_DIR", "two")
    assert done.returncode == 0, done.stderr
    close(workplace.losses("one"), workplace.losses("two"), rel=1e-3)


def test_torchrun(workplace):
    opts = ("DATASETS.TEST", "()", "SOLVER.MAX_ITER", "2", *AGREE)
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone")
    done = workplace.run(*opts, launcher=launcher)
    assert done.returncode == 0, done.stderr
    assert "2 process(es)" in done.stdout
    workplace.main(*opts, "OUTPUT_DIR", "one")
    close(workplace.losses("one"), workplace.losses(), rel=1e-3)


def test_accumulation_sees_the_images_of_one_batch(workplace):
    # A frozen model: a batch's loss is not the mean of its images', but nearly, because the
    # divisor (the number of masks) is each part's own.
    opts = ("DATASETS.TEST", "()", "SOLVER.MAX_ITER", "2", "SOLVER.BASE_LR", "0.0")
    workplace.main(*opts, "OUTPUT_DIR", "whole")
    workplace.main(*opts, "SOLVER.ACCUMULATE_STEPS", "2", "OUTPUT_DIR", "parts")
    whole, parts = workplace.losses("whole"), workplace.losses("parts")
    close(whole, parts, rel=0.1)


def test_mixed_precision_on_a_cpu(workplace):
    opts = ("DATASETS.TEST", "()", "SOLVER.MAX_ITER", "2")
    workplace.main(*opts, "OUTPUT_DIR", "full")
    workplace.main(*opts, "SOLVER.AMP.ENABLED", "True", "OUTPUT_DIR", "mixed")
    full, mixed = workplace.losses("full"), workplace.losses("mixed")
    assert full != mixed
    close(full, mixed, rel=0.05)


def test_loss_that_stays_non_finite_stops_the_run(workplace, capsys):
    opts = ("MODEL.PIXEL_STD", "(0.0,0.0,0.0)", "SOLVER.MAX_NON_FINITE_STEPS", "2")
    with pytest.raises(SystemExit) as error:
        workplace.main(*opts)
    stderr = capsys.readouterr().err
    assert error.value.code == 1 and "Traceback" not in stderr
    assert "iteration 1: loss_" in stderr and "_leftImg8bit.png" in stderr
    assert not (workplace.output / "model_final.pth").exists()


def test_resuming_a_finished_run_only_evaluates(workplace):
    opts = ("SOLVER.MAX_ITER", "2")
    workplace.main(*opts)
    losses, results = workplace.losses(), workplace.results()
    workplace.main("--resume", *opts)
    assert workplace.losses() == losses and workplace.results() == results
    (workplace.output / "metrics.json").unlink()
    (workplace.output / "log.txt").unlink()
    workplace.main("--resume", *opts)
    assert workplace.losses() == {} and workplace.results() == results


def test_a_finished_run_can_be_made_longer(workplace):
    opts = ("DATASETS.TEST", "()")
    workplace.main(*opts, "SOLVER.MAX_ITER", "2")
    workplace.main("--resume", *opts, "SOLVER.MAX_ITER", "4")
    metrics = workplace.metrics()
    assert list(metrics) == [0, 1, 2, 3]
    # The poly schedule of 4 iterations, not what the first run's of 2 would have been.
    assert metrics[3]["lr"] == pytest.approx(metrics[0]["lr"] * 0.25**0.9, rel=1e-6)
