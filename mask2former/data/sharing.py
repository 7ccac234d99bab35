"""What workers load, on its way to the process that trains."""

import re
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from torch import Tensor
from torch.utils.data import get_worker_info

# torch's words for it: "unable to allocate shared memory(shm) for file </torch_1_2_3>: No space
# left on device (28)", in other versions "unable to write to file ..."
_FULL = re.compile(r"unable to .*(No space left on device|Cannot allocate memory)", re.DOTALL)

_PINNING = "Pin memory thread exited unexpectedly"
GRACE = 5.0  # seconds

_Batch = TypeVar("_Batch")


class NoSharedMemory(OSError):
    """There is not enough memory to share for what workers send; the message says what to do."""


def shared(samples: list) -> list | NoSharedMemory:
    """A DataLoader's collate_fn: the samples as they are, their tensors in shared memory.

    torch would put them there later, in a thread: if the memory is full, that prints a traceback,
    the samples are lost, and the training waits for them for ever. An error is returned, not
    raised, for the reason that `ErrorAsValue` has.
    """
    if get_worker_info() is None:  # nothing is sent
        return samples
    try:
        _share(samples)
    except RuntimeError as error:
        if not _FULL.search(str(error)):
            raise
        return NoSharedMemory(
            "shared memory, through which workers send what they load, is full; make /dev/shm "
            "larger (docker run --shm-size 8g) or lower DATALOADER.NUM_WORKERS: 0 needs none"
        )
    return samples


def received(batches: Iterable[_Batch]) -> Iterator[_Batch]:
    """`batches` of a DataLoader, which says how it is if one of its workers has been killed.

    What that worker was sending breaks off a moment before torch hears of its end, which it then
    raises at once, wherever the program is: here, in its sleep.
    """
    try:
        yield from batches
    except (EOFError, ConnectionError):
        time.sleep(GRACE)
        raise
    except RuntimeError as error:
        if _PINNING in str(error):  # the thread that does it has received what breaks off
            time.sleep(GRACE)
        raise


def _share(value: Any) -> None:
    if isinstance(value, Tensor):
        value.share_memory_()
    elif isinstance(value, Mapping):
        for part in value.values():
            _share(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            _share(part)
    elif hasattr(value, "__dict__"):  # Instances, masks
        _share(vars(value))
