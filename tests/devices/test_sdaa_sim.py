"""The simulated device itself: what it computes, what it refuses, what its variables do.

The checks are in sim_checks/ and run in processes of their own, many in each.
"""

import json
import sys
from pathlib import Path

import pytest
import simulator
import torch

CHECKS = Path(__file__).parent / "sim_checks"


def test_operators_precision_runtime_refusals():
    pytest_alone = ("-m", "pytest", "--noconftest", "-p", "no:cacheprovider", "--durations=0")
    output = simulator.run([*pytest_alone, *sorted(CHECKS.glob("check_*.py"))])
    assert " passed" in output and "skipped" not in output


def test_four_processes(tmp_path):
    log = tmp_path / "log.jsonl"
    output = simulator.run([CHECKS / "ranks.py", tmp_path], env={"SDAA_SIM_LOG": str(log)})
    assert "all ranks equal" in output
    calls = [json.loads(line) for line in log.read_text().splitlines()]
    assert len({call["pid"] for call in calls}) == 4
    groups = [call for call in calls if call["call"] == "init_process_group"]
    assert {(c["was_set"], c["rank"], c["device"]) for c in groups if c["size"] == 4} == {
        *((False, rank, 0) for rank in range(4)),
        *((True, rank, rank) for rank in range(4)),
    }


def test_other_settings(tmp_path):
    log = tmp_path / "log.jsonl"
    settings = {
        "SDAA_VISIBLE_DEVICES": "0,2,9",
        "TORCH_SDAA_AUTOLOAD": "cuda_migrate",
        "SDAA_SIM_OLD_AMP": "1",
        "SDAA_SIM_OOM": "bytes:4096*2@1",
        "SDAA_SIM_LOG": str(log),
    }
    output = simulator.run([CHECKS / "other_settings.py", tmp_path / "x.pth"], env=settings)
    assert output.startswith("torch_sdaa: SIMULATED") and output.endswith("ok\n")
    assert output.count("sdaa out of memory. Tried to allocate 0.00 MiB") == 2
    calls = [json.loads(line) for line in log.read_text().splitlines()]
    assert [call["call"] for call in calls] == [
        "cuda_migrate",
        "set_device",
        "synchronize",
        "out_of_memory",
        "out_of_memory",
        "manual_seed_all",
        "empty_cache",
    ]
    # What it saved on its device loads in this process, which has none.
    assert not hasattr(torch, "sdaa")
    loaded = torch.load(tmp_path / "x.pth", map_location="cpu", weights_only=True)
    assert loaded["weight"].tolist() == [[1, 1], [1, 1]]


WHAT_IS_THERE = """
from mask2former import device
print(device.device_count("sdaa"), device.resolve_device("auto"))
"""


@pytest.mark.parametrize(
    "visible, said",
    [
        ("", ""),
        ("a,b", "torch_sdaa is installed, but cannot be imported: SDAA_VISIBLE_DEVICES='a,b'"),
    ],
)
def test_without_visible_devices_another_is_looked_for(visible, said):
    hidden = {"SDAA_VISIBLE_DEVICES": visible, "CUDA_VISIBLE_DEVICES": ""}
    output = simulator.run(WHAT_IS_THERE, env=hidden)
    assert "0 cpu\n" in output and said in output and "Traceback" not in output


def test_a_second_accelerator():
    assert simulator.run([CHECKS / "zpu.py"], env={"ZPU_SIM_DEVICES": "2"}) == "ok\n"


def test_without_a_compiler_the_reason_is_given(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    reason = simulator.reason_against.__wrapped__()  # not the remembered one
    assert reason.startswith("no-such-compiler does not run") and "\n" not in reason
    assert simulator.SIMULATOR.as_posix() not in sys.path


@pytest.mark.parametrize("ci, outcome", [("", pytest.skip.Exception), ("1", pytest.fail.Exception)])
def test_without_a_compiler_tests_are_skipped_but_not_in_ci(monkeypatch, ci, outcome):
    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr(simulator, "reason_against", lambda: "no C++ compiler")
    with pytest.raises(outcome, match="no C"):
        simulator.need()
