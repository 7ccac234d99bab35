"""Processes on a CPU: who they are, and how a mistake or a bug in one of them shows."""

import importlib
import multiprocessing
import os

import pytest
import torch
import torch.distributed as dist
from detectron2.layers import NaiveSyncBatchNorm
from detectron2.utils import comm
from torch import nn

from mask2former.engine.launch import check_device_count, launch, world_size
from mask2former.engine.user_errors import user_sentence
from mask2former.layers.sync_batch_norm import convert_sync_batch_norm

IMAGES = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))


def make_norm():
    norm = nn.SyncBatchNorm(3)
    nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(1))
    return norm


def report(folder):
    """Who this process is, and what batch norm makes of its image among all."""
    norm = convert_sync_batch_norm(make_norm())
    own = IMAGES[comm.get_rank()][None].clone().requires_grad_()
    output = norm(own)
    output.pow(3).sum().backward()
    found = {
        "ranks": comm.all_gather((comm.get_rank(), comm.get_local_rank(), comm.get_local_size())),
        "backend": dist.get_backend(),
        "output": output.detach(),
        "grad": own.grad,
        "mean": norm.running_mean,
    }
    torch.save(found, os.path.join(folder, f"{comm.get_rank()}.pth"))


def test_two_processes_know_each_other_and_normalise_together(tmp_path):
    launch(report, 2, args=(str(tmp_path),))
    found = [torch.load(tmp_path / f"{rank}.pth") for rank in range(2)]
    assert found[0]["ranks"] == found[1]["ranks"] == [(0, 0, 2), (1, 1, 2)]
    assert found[0]["backend"] == "gloo"

    reference = nn.BatchNorm2d(3)
    reference.load_state_dict(make_norm().state_dict())
    images = IMAGES.clone().requires_grad_()
    output = reference(images)
    output.pow(3).sum().backward()
    assert torch.allclose(torch.cat([f["output"] for f in found]), output, atol=1e-5)
    assert torch.allclose(torch.cat([f["grad"] for f in found]), images.grad, atol=1e-4)
    assert torch.allclose(found[0]["mean"], reference.running_mean, atol=1e-6)


def test_conversion_keeps_names_values_and_mode():
    model = nn.Sequential(nn.Conv2d(3, 3, 1), make_norm()).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model = convert_sync_batch_norm(model)
    assert isinstance(model[1], NaiveSyncBatchNorm) and not model[1].training
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_batch_norm_keeps_the_type_of_its_input():
    norm = convert_sync_batch_norm(make_norm())
    with torch.autocast("cpu", torch.bfloat16):
        assert norm(IMAGES.bfloat16()).dtype == torch.bfloat16


def mistake(folder):
    if comm.get_rank() == 1:
        check_device_count("cpu", 0)  # raises a sentence of ours
    comm.synchronize()


def bug(folder):
    if comm.get_rank() == 1:
        torch.zeros(2) @ torch.zeros(3)
    comm.synchronize()


def test_mistake_in_one_process_is_one_sentence(tmp_path, capfd):
    with pytest.raises(SystemExit) as error:
        launch(mistake, 2, args=(str(tmp_path),))
    stderr = capfd.readouterr().err
    assert error.value.code == 1
    assert "error: --num-gpus 0; give 1 or more" in stderr
    assert "Traceback" not in stderr


def test_bug_in_one_process_keeps_its_traceback(tmp_path):
    with pytest.raises(torch.multiprocessing.ProcessRaisedException, match="inconsistent tensor"):
        launch(bug, 2, args=(str(tmp_path),))


def test_one_process_needs_no_group(tmp_path):
    found = []
    launch(found.append, 1, args=("called",))
    assert found == ["called"] and not dist.is_initialized()


def test_more_processes_than_devices_is_refused(monkeypatch):
    # By import_module, because the package has a function of the module's name.
    module = importlib.import_module("mask2former.engine.launch")
    monkeypatch.setattr(module, "device_count", lambda kind: 2)
    check_device_count("cuda", 2)
    check_device_count("cpu", 50)
    with pytest.raises(ValueError, match=r"--num-gpus 4, but this machine has 2 cuda device\(s\)"):
        launch(print, 4, device_type="cuda")


def test_machines_need_a_meeting_point():
    with pytest.raises(ValueError, match="--num-machines 2 without --dist-url"):
        launch(print, 1, num_machines=2)


def test_torchrun_decides_on_the_number_of_processes(monkeypatch):
    assert world_size(2, 3) == 6
    environment = {"RANK": "0", "WORLD_SIZE": "8", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert world_size(2, 3) == 8


def raised(function, *args):
    try:
        function(*args)
    except (ValueError, OSError, RuntimeError) as error:
        return error


def test_sentences_and_bugs_are_told_apart():
    assert user_sentence(raised(check_device_count, "cpu", 0)).startswith("--num-gpus 0")
    assert user_sentence(raised(int, "x")) is None  # a ValueError, but not raised by us
    assert user_sentence(raised(torch.zeros(2).view, 3)) is None
    full = RuntimeError("CUDA out of memory. Tried to allocate 2 GiB. GPU 0 has\nmore lines")
    assert user_sentence(full).startswith("CUDA out of memory.")
    assert "SOLVER.IMS_PER_BATCH" in user_sentence(full)


def test_no_process_is_left_behind():
    assert multiprocessing.active_children() == []
