"""The only file that names accelerators: which there are, and how to work with each.

A new accelerator is one entry in `ACCELERATORS`. Everything else asks this file.
"""

import importlib
import importlib.util
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import ModuleType

import torch


@dataclass(frozen=True)
class Accelerator:
    """What we need to know of a device type beyond what `torch.<type>` tells."""

    type: str
    collectives: str = "gloo"  # backend of torch.distributed
    plugin: str = ""  # package whose import makes the type known to torch
    amp_dtypes: tuple[torch.dtype, ...] = ()  # the first is what SOLVER.AMP.DTYPE auto means


# In the order in which `auto` looks for them. SDAA stands before CUDA: its cuda_migrate
# makes torch.cuda answer as well.
ACCELERATORS = (
    Accelerator("sdaa", "tccl", "torch_sdaa", (torch.float16, torch.bfloat16)),
    Accelerator("cuda", "nccl", "", (torch.float16, torch.bfloat16)),
    Accelerator("mps", "gloo", "", (torch.float16,)),
    Accelerator("cpu", "gloo", "", (torch.bfloat16,)),
)
_BY_TYPE = {a.type: a for a in ACCELERATORS}

# What each runtime writes when its memory is full.
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory")


def _module(device_type: str) -> ModuleType | None:
    """`torch.<type>`, with its plugin imported, or None where there is no such module."""
    plugin = _BY_TYPE[device_type].plugin if device_type in _BY_TYPE else ""
    if plugin and importlib.util.find_spec(plugin) is not None:
        importlib.import_module(plugin)
    return getattr(torch, device_type, None)


def device_count(device_type: str) -> int:
    """How many devices of this type this process may use. CPU and MPS count as one."""
    if device_type == "cpu":
        return 1
    module = _module(device_type)
    # torch 2.4 has no torch.mps.is_available; there, device_count tells it as well.
    if module is None or not getattr(module, "is_available", module.device_count)():
        return 0
    return module.device_count()


def best_device_type() -> str:
    """The first accelerator of the table that is there; "cpu" at the least."""
    return next(a.type for a in ACCELERATORS if device_count(a.type))


def resolve_device(name: str) -> torch.device:
    """The device that MODEL.DEVICE means: "auto" is the best there is, another name is itself.

    Raises:
        ValueError: there is no such device on this machine.
    """
    if name == "auto":
        return torch.device(best_device_type())
    device_type, _, index = name.partition(":")
    if device_type not in _BY_TYPE or (":" in name and not index.isdigit()):
        raise ValueError(f"MODEL.DEVICE={name!r}; set it to auto or one of {', '.join(_BY_TYPE)}")
    count = device_count(device_type)
    if count == 0 or (index and int(index) >= count):
        raise ValueError(
            f"MODEL.DEVICE={name!r}, but torch {torch.__version__} sees {count} {device_type} "
            f"device(s); set it to auto or {best_device_type()}"
        )
    return torch.device(name)


def set_device(device: torch.device) -> None:
    """Make `device` the current one of its type; nothing to do on a CPU."""
    module = _module(device.type)
    if device.type != "cpu" and hasattr(module, "set_device"):
        module.set_device(device)


def collectives_backend(device_type: str) -> str:
    """Backend of torch.distributed for tensors on this device type."""
    return _BY_TYPE[device_type].collectives


def supports_sync_batch_norm(device_type: str) -> bool:
    """Whether torch.nn.SyncBatchNorm has its kernels there; NaiveSyncBatchNorm runs anywhere."""
    return device_type == "cuda"


def amp_dtype(device_type: str, name: str = "auto") -> torch.dtype:
    """The type that mixed precision computes in on this device (SOLVER.AMP.DTYPE).

    Raises:
        ValueError: the device type has no such mixed precision, or this torch none for it.
    """
    if not torch.amp.is_autocast_available(device_type):
        raise ValueError(
            f"SOLVER.AMP.ENABLED=True, but torch {torch.__version__} has no mixed precision on "
            f"{device_type}; set it to False"
        )
    dtypes = _BY_TYPE[device_type].amp_dtypes
    if name == "auto":
        return dtypes[0]
    dtype = getattr(torch, name, None)
    if dtype not in dtypes:
        names = ", ".join(str(d).removeprefix("torch.") for d in dtypes)
        raise ValueError(f"SOLVER.AMP.DTYPE={name!r}; {device_type} has auto, {names}")
    return dtype


def autocast(device_type: str, dtype: torch.dtype, enabled: bool = True) -> AbstractContextManager:
    """Mixed precision on this device type."""
    return torch.autocast(device_type, dtype=dtype, enabled=enabled)


def full_precision(device_type: str) -> AbstractContextManager:
    """A region in which autocast is off, whatever the caller switched on."""
    if not torch.amp.is_autocast_available(device_type):  # torch 2.4 on MPS refuses to be asked
        return nullcontext()
    return torch.autocast(device_type, enabled=False)


def grad_scaler(device_type: str, dtype: torch.dtype) -> torch.amp.GradScaler:
    """Loss scaling; only float16 needs it, for other types it does nothing."""
    return torch.amp.GradScaler(device_type, enabled=dtype == torch.float16)


def synchronize(device: torch.device) -> None:
    """Wait for all work on `device`."""
    if device.type != "cpu":
        _module(device.type).synchronize()


def max_memory_mb(device: torch.device) -> float | None:
    """Peak memory that torch allocated on `device`, in MB; on a CPU the process's peak RSS.

    None where the device does not tell.
    """
    if device.type == "cpu":
        import resource
        import sys

        unit = 1024**2 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    read = getattr(_module(device.type), "max_memory_allocated", None)
    return read() / 1024**2 if read else None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that a device's memory is full."""
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY)


def empty_cache(device: torch.device) -> None:
    """Return cached blocks to the device."""
    if device.type != "cpu":
        _module(device.type).empty_cache()
