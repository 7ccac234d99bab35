"""The accelerator of this process, of whatever kind: the one that a plugin of torch brings, if one
has been imported, else torch's own.

A plugin's comes first: some make torch.cuda answer as well.
"""

from contextlib import AbstractContextManager
from types import ModuleType

import torch
import torch.distributed as dist

_OF_TORCH = ("cuda", "xpu")


def device_type() -> str:
    """The name that torch devices of the accelerator have; "cpu" where there is none."""
    types = (torch._C._get_privateuse1_backend_name(), *_OF_TORCH)
    return next((t for t in types if _is_available(t)), "cpu")


def _is_available(name: str) -> bool:
    return getattr(getattr(torch, name, None), "is_available", lambda: False)()


def module() -> ModuleType | None:
    """`torch.<device type>`, or None where there is no accelerator."""
    name = device_type()
    return None if name == "cpu" else getattr(torch, name)


def collectives_backend() -> str:
    """Backend of torch.distributed for tensors on the accelerator, or on the CPU without one."""
    return dist.Backend.default_device_backend_map.get(device_type(), dist.Backend.GLOO)


def _amp_of_its_own(name: str) -> ModuleType | None:
    # torch.autocast asks a plugin for get_amp_supported_dtype, which older plugins are without.
    plugin = getattr(torch, name, None)
    is_plugin = name == torch._C._get_privateuse1_backend_name()
    is_known = not is_plugin or hasattr(plugin, "get_amp_supported_dtype")
    return None if is_known else getattr(plugin, "amp", None)


def autocast(name: str, dtype: torch.dtype) -> AbstractContextManager:
    """Mixed precision on devices of type `name`."""
    own = _amp_of_its_own(name)
    return own.autocast(dtype=dtype) if own else torch.autocast(name, dtype=dtype)


def grad_scaler(name: str) -> torch.amp.GradScaler:
    """Loss scaling for devices of type `name`."""
    own = _amp_of_its_own(name)
    return own.GradScaler() if own else torch.amp.GradScaler(name)
