"""One process for each device, on any kind of device, or the processes that torchrun has made.

detectron2's launcher knows CUDA only, and takes the device after it has joined the group, which
SDAA does not allow.
"""

import logging
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.multiprocessing as mp

from mask2former.device import device_count, visible_devices
from mask2former.engine.user_errors import CANDIDATES, user_sentence
from mask2former.process_group import join, leave

EXIT_CODE = 1
INTERRUPTED = 130  # what shells make of SIGINT


def under_torchrun() -> bool:
    """Whether torchrun, or something like it, has started this process as one of several."""
    return all(name in os.environ for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"))


def world_size(num_processes: int, num_machines: int = 1) -> int:
    """Processes of the whole run: what torchrun says, or the arguments' product."""
    return int(os.environ["WORLD_SIZE"]) if under_torchrun() else num_processes * num_machines


def first_rank(machine_rank: int = 0) -> int:
    """Of this process before it has joined the others, or has started them: 0 is the main one."""
    return int(os.environ["RANK"]) if under_torchrun() else machine_rank


def check_device_count(device_type: str, num_processes: int) -> None:
    """
    Raises:
        ValueError: this machine has fewer devices than processes; a CPU is shared by any number.
    """
    if num_processes < 1:
        raise ValueError(f"--num-gpus {num_processes}; give 1 or more")
    count = device_count(device_type)
    if device_type != "cpu" and num_processes > count:
        raise ValueError(
            f"--num-gpus {num_processes}, but this machine has {count} {device_type} device(s)"
            f"{visible_devices(device_type)}; give at most {count}, or run on the CPU with "
            "MODEL.DEVICE cpu"
        )


def launch(
    main: Callable[..., Any],
    num_processes: int,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str = "auto",
    args: tuple = (),
    device_type: str = "cpu",
) -> None:
    """Call `main(*args)` in each process of a run.

    Args:
        main: a module-level function.
        num_processes: on this machine, one a device. Under torchrun, torchrun decides.
        num_machines, machine_rank: all of them, and which one this is.
        dist_url: where the processes meet; "auto" takes a free port of this machine.
        device_type: of MODEL.DEVICE; processes on a CPU share its cores.

    Raises:
        ValueError: there are fewer devices than processes, or machines without a meeting point.
        SystemExit: a process failed by a user's mistake, which is on stderr then.
        KeyboardInterrupt: the other processes have been told to end.
    """
    if under_torchrun():
        local_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        check_device_count(device_type, local_size)
        join(
            int(os.environ["LOCAL_RANK"]),
            int(os.environ["RANK"]),
            int(os.environ["WORLD_SIZE"]),
            local_size,
            "env://",
            device_type,
        )
        main(*args)
        leave()
        return
    check_device_count(device_type, num_processes)
    if num_processes * num_machines == 1:
        main(*args)
        return
    if dist_url == "auto":
        if num_machines > 1:
            raise ValueError(
                f"--num-machines {num_machines} without --dist-url; "
                "give one that all of them reach, e.g. tcp://10.0.0.1:29500"
            )
        dist_url = f"tcp://127.0.0.1:{_free_port()}"
    sentences = mp.get_context("spawn").SimpleQueue()
    job = (main, num_processes, num_machines, machine_rank, dist_url, args, device_type, sentences)
    # Its warning that it ends the others would stand beside the sentence.
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
    started = mp.start_processes(
        _process, job, nprocs=num_processes, join=False, start_method="spawn"
    )
    try:
        while not started.join():
            pass
    except KeyboardInterrupt:
        # Ctrl-C has reached them too, `kill -INT` of this one has not.
        for process in started.processes:
            process.terminate()
        raise
    except (mp.ProcessExitedException, mp.ProcessRaisedException):
        # The other processes fail as a consequence, and may be the first to be noticed.
        if sentences.empty():
            raise
        fail(sentences.get())


def fail(sentence: str) -> None:
    """End this program with a sentence on stderr."""
    print(f"{os.path.basename(sys.argv[0])}: error: {sentence}", file=sys.stderr)
    raise SystemExit(EXIT_CODE)


def interrupted(what_now: str) -> None:
    """End this program, which Ctrl-C has interrupted; its main process says so on stderr."""
    if first_rank() == 0:
        print(f"{os.path.basename(sys.argv[0])}: interrupted{what_now}", file=sys.stderr)
    raise SystemExit(INTERRUPTED)


def _process(
    local_rank: int,
    main: Callable[..., Any],
    num_processes: int,
    num_machines: int,
    machine_rank: int,
    dist_url: str,
    args: tuple,
    device_type: str,
    sentences: Any,
) -> None:
    if device_type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // num_processes))
    rank = machine_rank * num_processes + local_rank
    try:
        join(local_rank, rank, num_processes * num_machines, num_processes, dist_url, device_type)
        main(*args)
    except CANDIDATES as error:
        sentence = user_sentence(error)
        if sentence is None:
            raise
        # A sentence instead of the traceback that torch would show of this process.
        sentences.put(sentence)
        raise SystemExit(EXIT_CODE) from error
    leave()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
