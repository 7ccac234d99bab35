"""How a process joins the others of its run, and leaves them, on any kind of device."""

from datetime import timedelta

import torch
import torch.distributed as dist
from detectron2.utils import comm

from mask2former.device import collectives_backend, set_device

TIMEOUT = timedelta(minutes=30)


def join(
    local_rank: int,
    rank: int,
    world_size: int,
    local_size: int,
    url: str | None,
    device_type: str,
    timeout: timedelta = TIMEOUT,
) -> None:
    """Take the device of index `local_rank`, then wait for all others at `url`.

    Args:
        local_rank, local_size: which of this machine's processes this is, of how many.
        rank, world_size: the same among those of all machines.
        url: as torch.distributed's init_method.
        timeout: after which a collective that waits for another process fails.
    """
    # A CPU has no index to take.
    if device_type != "cpu":
        set_device(torch.device(device_type, local_rank))  # before the group: SDAA requires it
    dist.init_process_group(
        collectives_backend(device_type),
        init_method=url,
        rank=rank,
        world_size=world_size,
        timeout=timeout,
    )
    comm.create_local_process_group(local_size)
    comm.synchronize()


def leave() -> None:
    """End the group, all processes together."""
    comm.synchronize()  # gloo aborts a process whose peer hangs up in mid-exchange
    dist.destroy_process_group()
