"""Which process this is among how many, and exchanging python objects and losses between them.

Everything works without torch.distributed as well: then there is one process.
"""

from __future__ import annotations  # a torch without distributed lacks the group's type

from typing import Any

import numpy as np
import torch
import torch.distributed as dist

_LOCAL_PROCESS_GROUP = None
"""The processes of this machine, see `create_local_process_group`."""

_object_group: tuple | None = None
"""(default group, gloo group over the same processes), made on first use."""


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def get_world_size() -> int:
    """Number of processes on all machines."""
    return dist.get_world_size() if _is_distributed() else 1


def get_rank() -> int:
    """Index of this process among all."""
    return dist.get_rank() if _is_distributed() else 0


def create_local_process_group(num_workers_per_machine: int) -> None:
    """Group the processes by machine. Every process calls it once, after torch.distributed is up.

    Raises:
        ValueError: the processes do not divide into machines of this size.
    """
    global _LOCAL_PROCESS_GROUP
    assert _LOCAL_PROCESS_GROUP is None, "the local process group exists already"
    world_size = get_world_size()
    if world_size % num_workers_per_machine:
        raise ValueError(
            f"{world_size} processes are not a multiple of {num_workers_per_machine} per machine; "
            "start as many on each machine"
        )
    for first in range(0, world_size, num_workers_per_machine):
        ranks = list(range(first, first + num_workers_per_machine))
        group = dist.new_group(ranks)  # collective: also called by those outside it
        if get_rank() in ranks:
            _LOCAL_PROCESS_GROUP = group


def get_local_process_group() -> dist.ProcessGroup:
    """The group of this machine's processes.

    Raises:
        RuntimeError: `create_local_process_group` was not called, which `launch` does.
    """
    if _LOCAL_PROCESS_GROUP is None:
        raise RuntimeError(
            "no local process group; start the processes with detectron2.engine.launch or call "
            "comm.create_local_process_group"
        )
    return _LOCAL_PROCESS_GROUP


def get_local_rank() -> int:
    """Index of this process among those of its machine."""
    return dist.get_rank(group=get_local_process_group()) if _is_distributed() else 0


def get_local_size() -> int:
    """Number of processes on this machine."""
    return dist.get_world_size(group=get_local_process_group()) if _is_distributed() else 1


def is_main_process() -> bool:
    """Whether this process writes the files and the console."""
    return get_rank() == 0


def _get_object_group() -> dist.ProcessGroup:
    """A group that takes python objects.

    Backends of accelerators would copy every pickle to the device and back.
    """
    global _object_group
    if dist.get_backend() == "gloo":
        return dist.group.WORLD
    if _object_group is None or _object_group[0] is not dist.group.WORLD:
        _object_group = (dist.group.WORLD, dist.new_group(backend="gloo"))
    return _object_group[1]


def synchronize() -> None:
    """Wait until every process has come here."""
    if get_world_size() > 1:
        dist.barrier(group=_get_object_group())


def all_gather(data: Any, group: dist.ProcessGroup | None = None) -> list:
    """Every process's `data` (anything that pickles), by rank, on every process."""
    if get_world_size() == 1:
        return [data]
    group = group or _get_object_group()
    gathered = [None] * dist.get_world_size(group)
    dist.all_gather_object(gathered, data, group=group)
    return gathered


def gather(data: Any, dst: int = 0, group: dist.ProcessGroup | None = None) -> list:
    """Every process's `data` (anything that pickles), by rank, on process `dst`; [] elsewhere.

    Args:
        dst: rank within `group`.
    """
    if get_world_size() == 1:
        return [data]
    group = group or _get_object_group()
    is_destination = dist.get_rank(group) == dst
    gathered = [None] * dist.get_world_size(group) if is_destination else None
    dist.gather_object(data, gathered, dst=dist.get_global_rank(group, dst), group=group)
    return gathered if is_destination else []


def shared_random_seed() -> int:
    """Rank 0 draws a number from numpy's state; all processes get it."""
    return all_gather(np.random.randint(2**31))[0]


def reduce_dict(input_dict: dict[str, torch.Tensor], average: bool = True) -> dict:
    """Mean (or sum) over processes of each scalar tensor, on rank 0; elsewhere undefined.

    All processes have the same keys. Ends up in one collective call, whatever the number of keys.
    """
    world_size = get_world_size()
    if world_size == 1:
        return input_dict
    with torch.no_grad():
        names = sorted(input_dict)  # dicts of different processes may differ in order
        values = torch.stack([input_dict[name] for name in names])
        dist.reduce(values, dst=0)
        if is_main_process() and average:
            values /= world_size
        return dict(zip(names, values))
