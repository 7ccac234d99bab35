"""Whole runs on the simulated device: they train, evaluate, go on, and fail as on any other.

Its random numbers are the CPU's, where losses are compared with those of a CPU.
"""

import json
from pathlib import Path

import device_models
import device_ranks
import device_runs
import pytest
import torch
from device_runs import AMP, HALFWAY, STEPS, UNTESTED, leave_half
from simulator import run
from tiny_run import Workplace

TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone")
SYNC_BN = ("MODEL.BACKBONE.FREEZE_AT", "0", "MODEL.RESNETS.NORM", "SyncBN")
MADE_UP = Path(__file__).with_name("made_up_accelerator.py")  # imported, it changes the table here
OF_OLDER = ("precision", "short_amp", "too_many")  # cases of the fixture `older`


@pytest.fixture(scope="module")
def place(tmp_path_factory, datasets):
    return Workplace(tmp_path_factory.mktemp("runs"), datasets)


def start(place, *command, **variables):
    """Run a Python program in the workplace; returns the calls that the device noted."""
    calls = place.folder / "calls"
    calls.write_text("")
    own = {"DETECTRON2_DATASETS": str(place.datasets), "SDAA_SIM_LOG": str(calls)}
    run(command, env=own | variables, cwd=place.folder)
    return [json.loads(line) for line in calls.read_text().splitlines()]


def run_cases(place, *cases, **variables):
    """What device_runs says of these cases."""
    start(place, device_runs.__file__, "said.json", *cases, **variables)
    return json.loads((place.folder / "said.json").read_text())


@pytest.fixture(scope="module")
def found(place):
    names = [name for name in device_runs.CASES if name not in OF_OLDER]
    return run_cases(place, *names, SDAA_SIM_RANDOM="cpu")


def log_of(place, case):
    return (place.folder / case / "log.txt").read_text()


def state_of(place, case):
    path = place.folder / case / "model_final.pth"
    return torch.load(path, map_location="cpu", weights_only=True)


def test_a_run_takes_the_device_and_says_so(place, found):
    said = found["full"]["stderr"] + found["amp"]["stderr"]
    assert "Warning" not in said and "rror" not in said
    assert "1 process(es) on sdaa (simulated SDAA 0), 4 visible" in log_of(place, "full")
    # The device's memory, not the process's, which is far more.
    last = place.metrics("full")[2 * HALFWAY - 1]["max_mem_mb"]
    assert 10 < last <= found["full"]["peak_mb"] < found["cpu"]["peak_mb"] / 2


def test_losses_are_those_of_the_cpu(place, found):
    full, mixed, expected = (place.losses(case) for case in ("full", "amp", "cpu"))
    assert list(full) == list(mixed) == list(expected) == list(range(2 * HALFWAY))
    # Rounding grows: soon it changes which points count as uncertain, and what a query is matched
    # with. On a CPU another number of threads does so as well.
    assert [full[i] for i in range(2)] == pytest.approx([expected[i] for i in range(2)], rel=1e-5)
    assert full == pytest.approx(expected, rel=0.05)
    assert full != mixed == pytest.approx(expected, rel=0.2)


def test_resume_is_the_uninterrupted_run(place, found):
    assert place.losses("amp_resumed") == place.losses("amp")
    one, other = (state_of(place, case) for case in ("amp_resumed", "amp"))
    assert all(torch.equal(one["model"][key], value) for key, value in other["model"].items())
    scalers = [state["trainer"]["_trainer"]["grad_scaler"] for state in (one, other)]
    assert scalers[0] == scalers[1] and scalers[0]["scale"] > 1


def test_what_the_device_wrote_goes_on_and_evaluates_on_a_cpu(place, found, workplace):
    for case, amp in (("full", ()), ("amp", AMP)):
        leave_half(place.folder / case, case)
        workplace.main("--resume", *STEPS, *amp, *UNTESTED, "OUTPUT_DIR", case)
        resumed, whole = workplace.losses(case), place.losses(case)
        assert list(resumed) == list(whole)
        assert resumed[HALFWAY] == pytest.approx(whole[HALFWAY], rel=0.05 if amp else 1e-4)
        assert resumed == pytest.approx(whole, rel=0.2)
        weights = ("MODEL.WEIGHTS", str(place.folder / case / "model_final.pth"))
        workplace.main("--eval-only", *weights, "OUTPUT_DIR", f"{case}_again")
        expected = place.results(case)
        for task, scores in workplace.results(f"{case}_again").items():
            assert scores == pytest.approx(expected[task], abs=0.5, nan_ok=True), task


def test_what_a_cpu_wrote_goes_on_on_the_device(place, found):
    resumed, whole = place.losses("cpu_resumed"), place.losses("cpu")
    assert list(resumed) == list(whole)
    assert resumed[HALFWAY] == pytest.approx(whole[HALFWAY], rel=1e-4)
    assert resumed == pytest.approx(whole, rel=0.05)


def test_a_bad_loss_is_left_out_in_mixed_precision(place, found):
    assert list(place.losses("one_bad_loss")) == [0, 2, 3]
    said = log_of(place, "one_bad_loss")
    assert said.count("this step is left out") == 1
    assert "iteration 1: loss_ce not finite on" in said and "_leftImg8bit.png" in said


def test_losses_that_stay_bad_stop_the_run(place, found):
    said = found["only_bad_losses"]["stderr"]
    assert "iteration 1: loss_" in said and "_leftImg8bit.png" in said
    assert "set SOLVER.AMP.ENABLED False" in said and "Traceback" not in said
    assert not (place.folder / "only_bad_losses" / "model_final.pth").exists()


def test_full_memory_is_one_sentence(found):
    (line,) = found["out_of_memory"]["stderr"].splitlines()
    assert "error: sdaa out of memory. Tried to allocate" in line
    assert "lower SOLVER.IMS_PER_BATCH" in line


@pytest.fixture(scope="module")
def older(place):
    """A plugin with mixed precision of its own only, which redirects what asks for CUDA."""
    variables = {"SDAA_SIM_OLD_AMP": "1", "TORCH_SDAA_AUTOLOAD": "cuda_migrate"}
    variables |= {"SDAA_VISIBLE_DEVICES": "0,1"}
    return run_cases(place, *OF_OLDER, **variables)


def test_an_older_plugin_that_redirects_cuda(place, older):
    device_models.check_precision(older["precision"])
    assert len(place.losses("short_amp")) == 4
    assert set(place.results("short_amp")) == {"sem_seg", "sem_seg_pixel"}
    assert "1 process(es) on sdaa (simulated SDAA 0), 2 visible" in log_of(place, "short_amp")


def test_more_processes_than_visible_devices(place, older):
    (line,) = older["too_many"]["stderr"].splitlines()
    assert "--num-gpus 4, but this machine has 2 sdaa device(s) (SDAA_VISIBLE_DEVICES=0,1)" in line
    assert not (place.folder / "too_many").exists()


@pytest.mark.parametrize("num_processes, launcher", [(4, ()), (2, TORCHRUN)])
def test_processes_end_with_equal_weights(place, num_processes, launcher):
    folder = f"ranks_{num_processes}"
    words = (*AMP, *SYNC_BN, *UNTESTED, "SOLVER.MAX_ITER", "3", "OUTPUT_DIR", folder)
    words = (*words, "SOLVER.IMS_PER_BATCH", "4", "MODEL.DEVICE", "auto")
    words = place.words(*(() if launcher else ("--num-gpus", "4")), *words)
    calls = start(place, *launcher, device_ranks.__file__, *words)
    ranks = json.loads((place.folder / folder / "ranks.json").read_text())
    assert [device for device, _ in ranks] == [f"sdaa:{i}" for i in range(num_processes)]
    assert len({weights for _, weights in ranks}) == 1
    assert len(place.losses(folder)) == 3

    of_processes = {}
    for call in calls:
        if call["call"] in ("set_device", "init_process_group"):
            of_processes.setdefault(call["pid"], []).append(call)
    orders = [[call["call"] for call in own[:2]] for own in of_processes.values()]
    assert orders == [["set_device", "init_process_group"]] * num_processes
    taken = sorted(own[0]["device"] for own in of_processes.values())
    assert taken == list(range(num_processes))


def test_another_accelerator_is_one_entry_of_the_table(place):
    words = ("MODEL.DEVICE", "auto", *AMP, *SYNC_BN, "SOLVER.MAX_ITER", "2", "OUTPUT_DIR", "zpu")
    start(place, MADE_UP, *place.words(*words))
    assert "1 process(es) on zpu (simulated ZPU 0), 4 visible" in log_of(place, "zpu")
    assert len(place.losses("zpu")) == 2
    assert set(place.results("zpu")) == {"sem_seg", "sem_seg_pixel"}
