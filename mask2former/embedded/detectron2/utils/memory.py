"""Trying again when a device's memory is full."""

import functools
import logging
from collections.abc import Callable
from typing import Any

import torch

__all__ = ["retry_if_cuda_oom"]


def _is_out_of_memory(error: RuntimeError) -> bool:
    # "CUDA out of memory. Tried ...", "sdaa out of memory. ...", "CUDA error: out of memory"
    return "out of memory" in str(error)


def _device_type(value: object) -> str | None:
    return getattr(getattr(value, "device", None), "type", None)


def _on_cpu(value: Any) -> Any:
    return value.to(device="cpu") if _device_type(value) not in (None, "cpu") else value


def _empty_caches(values: list) -> None:
    for device_type in {_device_type(value) for value in values} - {None, "cpu"}:
        getattr(torch, device_type).empty_cache()


def retry_if_cuda_oom(func: Callable) -> Callable:
    """Let `func` try again if the accelerator's memory is full: first with an emptied cache, then
    with its arguments on the CPU, in which case its results may be there as well.

    Args:
        func: without side effects. Arguments with `.device` and `.to` move; containers do not.
    """

    @functools.wraps(func)
    def wrapped(*args, **kwargs) -> Any:
        for _ in range(2):
            try:
                return func(*args, **kwargs)
            except RuntimeError as error:
                if not _is_out_of_memory(error):
                    raise
            # Outside of `except`: the traceback would keep the failed call's tensors alive.
            _empty_caches([*args, *kwargs.values()])
        logging.getLogger(__name__).info("Out of memory: %s runs on the CPU", func)
        return func(*map(_on_cpu, args), **{name: _on_cpu(v) for name, v in kwargs.items()})

    return wrapped
