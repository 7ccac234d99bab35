"""Torch as modules of detectron2 see it that ask `torch.cuda` for whatever device there is."""

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch.utils.data import get_worker_info

from mask2former import device as devices

# Functions that a device need not have, and what they return where it has not.
_UNTOLD = {
    "memory_allocated": math.nan,
    "max_memory_allocated": math.nan,
    "memory_reserved": math.nan,
    "max_memory_reserved": math.nan,
    "memory_summary": "",
    "reset_peak_memory_stats": None,
}


class TorchView:
    """torch, but for the attributes that it is given."""

    def __init__(self, **own) -> None:
        vars(self).update(own)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


class BestDevice:
    """To stand for torch.cuda: the same functions of the best device type of this machine.

    Args:
        needed: a function that is all that a module asks for; without it, no device is there.
    """

    def __init__(self, needed: str = "") -> None:
        self._needed = needed

    def __getattr__(self, name: str) -> Callable:
        if name in _UNTOLD and not hasattr(self._module(), name):
            return lambda: _UNTOLD[name]
        return getattr(self._module(), name)

    def _module(self) -> ModuleType:
        return getattr(torch, devices.best_device_type())

    def is_available(self) -> bool:
        return not self._needed or hasattr(self._module(), self._needed)

    def manual_seed_all(self, seed: int | str) -> None:
        if get_worker_info() is None:  # a loader's worker must not start a device
            devices.seed_all(int(seed), devices.best_device_type())


class NoDevice:
    """To stand for torch.cuda where only what CUDA itself has is asked for."""

    def is_available(self) -> bool:
        return False
