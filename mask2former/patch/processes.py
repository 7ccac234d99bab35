"""Processes of detectron2, one for each device of any kind."""

import functools
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from detectron2.utils import comm
from torch import nn

from mask2former import device as devices
from mask2former.process_group import TIMEOUT, join


def run_worker(
    local_rank: int,
    main_func: Callable[..., Any],
    world_size: int,
    num_processes: int,
    machine_rank: int,
    dist_url: str | None,
    args: tuple,
    timeout: timedelta = TIMEOUT,
) -> None:
    """What each process of detectron2's `launch` does: join the others, call `main_func(*args)`.

    Pickled by this module's name: the process that unpickles it imports us, and so is patched.

    Raises:
        ValueError: this machine has fewer devices than processes.
    """
    device_type = devices.best_device_type()
    if devices.collectives_backend(device_type) == devices.collectives_backend("cpu"):
        device_type = "cpu"  # a device without collectives of its own is for a single process
    count = devices.device_count(device_type)
    if device_type != "cpu" and num_processes > count:
        raise ValueError(
            f"{num_processes} processes, but this machine has {count} {device_type} device(s)"
            f"{devices.visible_devices(device_type)}; start at most {count}"
        )
    rank = machine_rank * num_processes + local_rank
    join(local_rank, rank, world_size, num_processes, dist_url, device_type, timeout)
    main_func(*args)
    if dist.is_initialized():  # main_func may have ended it; without it, gloo may abort at exit
        dist.destroy_process_group()


def object_group() -> dist.ProcessGroup:
    """All processes, on gloo: a device's backend would copy every pickle there and back."""
    world = dist.group.WORLD
    return world if dist.get_backend() == "gloo" else _beside(world)


@functools.lru_cache(maxsize=1)  # a process may join another world after the first
def _beside(world: dist.ProcessGroup) -> dist.ProcessGroup:
    return dist.new_group(backend="gloo")


def synchronize() -> None:
    """Wait until every process has come here."""
    if comm.get_world_size() > 1:
        dist.barrier(group=object_group())


def create_ddp_model(original: Callable, model: nn.Module, **kwargs) -> nn.Module:
    """detectron2's, which names a CUDA device for inputs that the model itself moves to its own."""
    return original(model, **{"device_ids": None, **kwargs})
