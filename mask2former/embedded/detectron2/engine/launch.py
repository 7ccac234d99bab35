"""Start one process for each device (or as many as asked on a CPU) and connect them."""

import logging
import socket
from collections.abc import Callable
from datetime import timedelta

import torch.distributed as dist
import torch.multiprocessing as mp

from detectron2.utils import _accelerator, comm

DEFAULT_TIMEOUT = timedelta(minutes=30)

logger = logging.getLogger(__name__)


def launch(
    main_func: Callable,
    num_gpus_per_machine: int,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str | None = None,
    args: tuple = (),
    timeout: timedelta = DEFAULT_TIMEOUT,
) -> None:
    """Call `main_func(*args)` in each process of a distributed job; to be called on each machine.

    A job of one process runs in this one. Otherwise `main_func` and `args` must be picklable.

    Args:
        num_gpus_per_machine: processes on each machine, one for each device of its accelerator;
            without one they run on its CPU.
        dist_url: where the processes meet, e.g. "tcp://127.0.0.1:8686"; "auto" takes a free port
            of this machine; None reads the address from the environment.
        timeout: after which a collective that waits for another process fails.

    Raises:
        ValueError: "auto" with several machines; more processes than this machine has devices.
    """
    world_size = num_machines * num_gpus_per_machine
    if world_size == 1:
        main_func(*args)
        return
    if dist_url == "auto":
        if num_machines > 1:
            raise ValueError(
                f"dist_url=auto with {num_machines} machines; give the address of one of them: "
                "tcp://HOST:PORT"
            )
        dist_url = f"tcp://127.0.0.1:{_free_port()}"
    if num_machines > 1 and dist_url is not None and dist_url.startswith("file://"):
        logger.warning("%s: a file is no reliable meeting point; prefer tcp://", dist_url)
    accelerator = _accelerator.module()
    if accelerator is not None and num_gpus_per_machine > accelerator.device_count():
        raise ValueError(
            f"{num_gpus_per_machine} processes asked for, but this machine has "
            f"{accelerator.device_count()} {_accelerator.device_type()} device(s); "
            "ask for as many at most"
        )
    mp.start_processes(
        _run_worker,
        nprocs=num_gpus_per_machine,
        args=(main_func, world_size, num_gpus_per_machine, machine_rank, dist_url, args, timeout),
    )


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.bind(("", 0))
        return sock.getsockname()[1]


def _run_worker(
    local_rank: int,
    main_func: Callable,
    world_size: int,
    num_local: int,
    machine_rank: int,
    dist_url: str | None,
    args: tuple,
    timeout: timedelta,
) -> None:
    accelerator = _accelerator.module()
    if accelerator is not None:
        accelerator.set_device(local_rank)  # before the group: some backends require it
    dist.init_process_group(
        _accelerator.collectives_backend(),
        init_method=dist_url,
        world_size=world_size,
        rank=machine_rank * num_local + local_rank,
        timeout=timeout,
    )
    comm.create_local_process_group(num_local)
    comm.synchronize()  # nobody computes before all are connected
    main_func(*args)
    if dist.is_initialized():  # main_func may have done it; without it, gloo may abort at exit
        dist.destroy_process_group()
