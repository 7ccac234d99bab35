"""Trying again when a device's memory is full."""

import functools
from collections.abc import Callable

from mask2former.device import retry_on_cpu


def retry_if_out_of_memory(func: Callable) -> Callable:
    """`func` that tries again with emptied caches, then with its arguments on the CPU.

    In the latter case its results may be there as well.
    """

    @functools.wraps(func)
    def wrapped(*args, **kwargs) -> object:
        return retry_on_cpu(func, *args, **kwargs)

    return wrapped
