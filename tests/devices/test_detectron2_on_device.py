"""Detectron2 itself on a device that it was not written for, in a script which knows nothing else.

On the real one this proves the replacements of mask2former/patch; the embedded one needs none.
"""

import json
import os
from pathlib import Path

import pytest
from simulator import ROOT, SIMULATOR, run

import mask2former
from mask2former._provider import EMBEDDED

SCRIPT = Path(__file__).parent / "detectron2_user.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the script leaves. One run of it: it takes longer to start than to train."""
    folder = tmp_path_factory.mktemp("detectron2_user")
    # It imports detectron2 first, and so has to find it by itself.
    own = [EMBEDDED] if mask2former.DETECTRON2_PROVIDER == "embedded" else []
    paths = os.pathsep.join(map(str, [SIMULATOR, ROOT, *own]))
    env = {"PYTHONPATH": paths, "SDAA_SIM_LOG": str(folder / "calls.jsonl")}
    run([SCRIPT, folder], devices=2, env=env)
    return folder


@pytest.fixture(scope="module")
def ranks(folder):
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def calls(folder):
    """What each process asked of its device, in that order."""
    lines = [json.loads(line) for line in (folder / "calls.jsonl").read_text().splitlines()]
    by_process = {}
    for line in lines:
        by_process.setdefault(line["pid"], []).append(line)
    joined = [c for c in by_process.values() if any(x["call"] == "init_process_group" for x in c)]
    return [[x["call"] for x in process] for process in joined]


def test_processes_have_a_device_each_and_agree(ranks):
    assert [r["device"] for r in ranks] == ["sdaa:0", "sdaa:1"]
    assert [r["backend"] for r in ranks] == ["tccl"] * 2
    assert all(r["same_weights"] for r in ranks)


def test_training_is_in_mixed_precision(ranks):
    assert all(r["seen"] == ["sdaa", "torch.float16"] for r in ranks)
    assert all(r["scale"] > 1 for r in ranks)


def test_batch_norm_over_the_processes_is_one_that_runs_there(ranks):
    assert [r["norm"] for r in ranks] == ["PortableSyncBatchNorm"] * 2


def test_evaluation_has_all_samples(ranks):
    assert ranks[0]["results"]["task"] == {"accuracy": 1.0, "number": 6}


def test_objects_are_exchanged(ranks):
    assert all(r["all_gather"] == [["rank", 0], ["rank", 1]] for r in ranks)
    assert [r["gather"] for r in ranks] == [[], [[0], [1]]]


def test_out_of_memory_is_tried_again_then_on_the_cpu(ranks):
    assert all(r["retried"] == [["sdaa", 2.0 * 2**20], ["cpu", 2.0 * 2**20]] for r in ranks)


def test_devices_are_asked_in_time(calls):
    assert len(calls) == 2
    for process in calls:
        assert process.index("set_device") < process.index("init_process_group")
        assert process.count("synchronize") >= 3  # once a sample: each process evaluates three
        assert "manual_seed_all" in process and "empty_cache" in process


def test_log_tells_the_device_and_its_memory(folder):
    log = (folder / "log.txt").read_text()
    assert "simulated SDAA" in log  # in the table of the environment
    assert "max_mem: " in log
    assert "max_allocated_mem" in log or "max_memory_allocated" in log


def test_one_process(folder):
    on_cpu, older_plugin = json.loads((folder / "one_process.json").read_text())
    assert on_cpu["seen"] == ["cpu", "torch.float16"]
    assert older_plugin["seen"] == ["sdaa", "torch.float16"]
    for found in (on_cpu, older_plugin):
        assert found["results"]["task"] == {"accuracy": 1.0, "number": 6}
