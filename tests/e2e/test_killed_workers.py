"""A worker that the system kills, as when memory runs out, ends the whole run with a sentence."""

import os
import signal
import time
from pathlib import Path

import pytest
from tiny_run import wait_for_iterations


def children(pid):
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except FileNotFoundError:  # it has just ended
            continue
        if int(fields[1]) == pid:
            found.append(int(path.parent.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are found in /proc")
@pytest.mark.parametrize("num_processes", [1, 2])
def test_a_killed_worker_ends_the_run(workplace, num_processes):
    opts = ("SOLVER.MAX_ITER", "10000", "DATASETS.TEST", "()", "DATALOADER.NUM_WORKERS", "1")
    process = workplace.start("--num-gpus", num_processes, *opts, own_group=True)
    wait_for_iterations(process, workplace, 2)
    workers = children(process.pid)
    if num_processes > 1:  # those of the processes that it has started
        workers = [worker for child in workers for worker in children(child)]
    assert len(workers) == num_processes
    os.kill(workers[-1], signal.SIGKILL)
    start = time.monotonic()
    out, err = process.communicate(timeout=60)  # until the last process has closed its output
    assert time.monotonic() - start < 30
    assert process.returncode == 1
    (line,) = [line for line in err.splitlines() if "error: " in line]
    assert f"a process that loads data, pid {workers[-1]}, was ended by a signal (Killed)" in line
    assert "lower DATALOADER.NUM_WORKERS" in line
    assert "Traceback" not in out + err
    log = (workplace.output / "log.txt").read_text()
    assert "Traceback" not in log
