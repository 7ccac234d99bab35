"""The only file that names accelerators: which there are, and how to work with each.

A new accelerator is one entry in `ACCELERATORS`. Everything else asks this file.
"""

import functools
import importlib
import importlib.util
import logging
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar

import torch

logger = logging.getLogger(__name__)

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Accelerator:
    """What we need to know of a device type beyond what `torch.<type>` tells."""

    type: str
    collectives: str = "gloo"  # backend of torch.distributed
    plugin: str = ""  # package whose import makes the type known to torch
    amp_dtypes: tuple[torch.dtype, ...] = ()  # the first is what SOLVER.AMP.DTYPE auto means
    visibility: str = ""  # environment variable that says which of them a process may use
    in_detectron2: bool = False  # detectron2 is written for it
    fused_sampling: bool = False  # torch's grid_sample is one fast kernel there
    sync_batch_norm: bool = False  # torch.nn.SyncBatchNorm has its kernels there
    operators: str = ""  # package with operators for it that torch does not have
    channels_last: str = ""  # where convolutions are faster with channels last: ALWAYS, IN_HALF
    fused_optimizers: bool = False  # torch's optimizers have one kernel for all of a step there
    triton: bool = False  # the package triton compiles kernels for it
    integer_sums: bool = False  # torch's cumsum and index_add of int8 run there
    pinned_memory: bool = False  # it copies from pinned memory while the host goes on


_HALVES = (torch.float16, torch.bfloat16)
ALWAYS, IN_HALF = "always", "in half precision"

# In the order in which `auto` looks for them. SDAA stands before CUDA: its cuda_migrate
# makes torch.cuda answer as well.
ACCELERATORS = [
    Accelerator(
        "sdaa",
        collectives="tccl",
        plugin="torch_sdaa",
        amp_dtypes=_HALVES,
        visibility="SDAA_VISIBLE_DEVICES",
        operators="tecoops",
    ),
    Accelerator(
        "cuda",
        collectives="nccl",
        amp_dtypes=_HALVES,
        visibility="CUDA_VISIBLE_DEVICES",
        in_detectron2=True,
        fused_sampling=True,
        sync_batch_norm=True,
        channels_last=IN_HALF,
        fused_optimizers=True,
        triton=True,
        integer_sums=True,
        pinned_memory=True,
    ),
    Accelerator("mps", amp_dtypes=(torch.float16,), fused_sampling=True),
    Accelerator(
        "cpu",
        amp_dtypes=(torch.bfloat16,),
        in_detectron2=True,
        fused_sampling=True,
        channels_last=ALWAYS,
        fused_optimizers=True,
        integer_sums=True,
    ),
]


def _entry(device_type: str) -> Accelerator:
    """The table's line; of a type that is not in it, one that promises nothing."""
    return next((a for a in ACCELERATORS if a.type == device_type), Accelerator(device_type))


# What each runtime writes when its memory is full.
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory")


@functools.cache  # tried, and told, once a process
def _plugin_failure(plugin: str) -> str:
    """Import the plugin, if it is installed; " (NAME: why it cannot be imported)", or ""."""
    if not plugin or importlib.util.find_spec(plugin) is None:
        return ""
    try:
        importlib.import_module(plugin)
    except (ImportError, OSError, RuntimeError) as error:  # e.g. a library or a driver is missing
        why = " ".join(str(error).split()) or type(error).__name__
        logger.warning("%s is installed, but cannot be imported: %s", plugin, why)
        return f" ({plugin} cannot be imported: {why})"
    return ""


def _module(device_type: str) -> ModuleType | None:
    """`torch.<type>`, with its plugin imported, or None where there is no such module."""
    failed = _plugin_failure(_entry(device_type).plugin)
    return None if failed else getattr(torch, device_type, None)


def device_count(device_type: str) -> int:
    """How many devices of this type this process may use. CPU and MPS count as one."""
    if device_type == "cpu":
        return 1
    module = _module(device_type)
    count = getattr(module, "device_count", lambda: 0)
    # torch 2.4 has no torch.mps.is_available; there, device_count tells it as well.
    return count() if getattr(module, "is_available", count)() else 0


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
    known = [a.type for a in ACCELERATORS]
    if device_type not in known or (":" in name and not index.isdigit()):
        raise ValueError(f"MODEL.DEVICE={name!r}; set it to auto or one of {', '.join(known)}")
    count = device_count(device_type)
    if count == 0 or (index and int(index) >= count):
        why = visible_devices(device_type) + _plugin_failure(_entry(device_type).plugin)
        raise ValueError(
            f"MODEL.DEVICE={name!r}, but torch {torch.__version__} sees {count} {device_type} "
            f"device(s){why}; set it to auto or {best_device_type()}"
        )
    return torch.device(name)


def visible_devices(device_type: str) -> str:
    """What the environment says of the devices that a process may use: " (NAME=0,1)", or ""."""
    variable = _entry(device_type).visibility
    return f" ({variable}={os.environ[variable]})" if variable in os.environ else ""


def unknown_to_detectron2() -> bool:
    """Whether there is a device on this machine for which detectron2 has not been written.

    CUDA is not asked: its answer would start its driver, after which a process cannot fork.
    """
    return any(not a.in_detectron2 and device_count(a.type) for a in ACCELERATORS)


def device_name(device: torch.device) -> str:
    """What the maker calls it; "" where nobody tells."""
    tell = getattr(_module(device.type), "get_device_name", None)
    return str(tell(device)) if tell else ""


def describe(device: torch.device) -> str:
    """For logs: "TYPE (NAME, PLUGIN VERSION), N visible (VARIABLE=...)", as far as it is known."""
    if device.type == "cpu":
        return "cpu"
    plugin = _entry(device.type).plugin
    version = getattr(sys.modules.get(plugin), "__version__", "")
    known = ", ".join(filter(None, [device_name(device), f"{plugin} {version}" if version else ""]))
    count = f"{device_count(device.type)} visible{visible_devices(device.type)}"
    return f"{device} ({known}), {count}" if known else f"{device}, {count}"


def set_device(device: torch.device) -> None:
    """Make `device` the current one of its type; nothing to do on a CPU."""
    module = _module(device.type)
    if device.type != "cpu" and hasattr(module, "set_device"):
        module.set_device(device)


def collectives_backend(device_type: str) -> str:
    """Backend of torch.distributed for tensors on this device type."""
    return _entry(device_type).collectives


def supports_sync_batch_norm(device_type: str) -> bool:
    """Whether torch.nn.SyncBatchNorm has its kernels there; NaiveSyncBatchNorm runs anywhere."""
    return _entry(device_type).sync_batch_norm


def operator_package(device_type: str) -> str:
    """Package with operators that torch does not have, and that need not be installed; or ""."""
    return _entry(device_type).operators


def has_fused_sampling(device_type: str) -> bool:
    """Whether grid_sample is one fast kernel there, rather than missing or many small ones."""
    return _entry(device_type).fused_sampling


def image_layout(device_type: str) -> torch.memory_format:
    """How a batch of images lies in memory there; the feature maps made of it follow."""
    where = _entry(device_type).channels_last
    if where == ALWAYS or (where == IN_HALF and torch.is_autocast_enabled(device_type)):
        return torch.channels_last
    return torch.contiguous_format


def has_fused_optimizers(device_type: str) -> bool:
    """Whether torch's AdamW and SGD have one kernel for a whole step there (`fused=True`)."""
    return _entry(device_type).fused_optimizers


def runs_triton(device_type: str) -> bool:
    """Whether the package triton, where it is installed, compiles kernels for it."""
    return _entry(device_type).triton


def sums_integers(device_type: str) -> bool:
    """Whether torch's cumsum and index_add of int8 run there; nobody has tried them everywhere."""
    return _entry(device_type).integer_sums


def copies_from_pinned_memory(device_type: str) -> bool:
    """Whether tensors travel there while the host goes on, if they are pinned.

    Copies may then be `non_blocking`; elsewhere, what they read could be gone before they do.
    """
    return _entry(device_type).pinned_memory


def current(device: torch.device) -> AbstractContextManager:
    """A region in which kernels that are not torch's own are launched on `device`."""
    region = getattr(_module(device.type), "device", None)
    return region(device) if region else nullcontext()


def seed_all(seed: int, device_type: str) -> None:
    """Seed torch's generators of the CPU and of all devices of this type."""
    torch.manual_seed(seed)  # of those that torch knows of, which a plugin's need not be
    reach = getattr(_module(device_type), "manual_seed_all", None)
    if reach is not None:
        reach(seed)


def _own_amp(device_type: str) -> ModuleType | None:
    """`torch.<type>.amp` of a plugin whose autocast torch.autocast does not know, else None.

    torch.autocast asks a plugin for get_amp_supported_dtype; older plugins came without it.
    """
    module = _module(device_type)
    if not _entry(device_type).plugin or hasattr(module, "get_amp_supported_dtype"):
        return None
    return getattr(module, "amp", None)


def amp_dtype(device_type: str, name: str = "auto", key: str = "SOLVER.AMP") -> torch.dtype:
    """The type that mixed precision computes in on this device.

    Args:
        name: the DTYPE of `key`.
        key: the config keys to speak of, SOLVER.AMP or TEST.AMP.

    Raises:
        ValueError: the device type has no such mixed precision, or this torch none for it.
    """
    if not (_own_amp(device_type) or torch.amp.is_autocast_available(device_type)):
        raise ValueError(
            f"{key}.ENABLED=True, but torch {torch.__version__} has no mixed precision on "
            f"{device_type}; set it to False"
        )
    dtypes = _entry(device_type).amp_dtypes
    if name == "auto":
        return dtypes[0]
    dtype = getattr(torch, name, None)
    if dtype not in dtypes:
        names = ", ".join(str(d).removeprefix("torch.") for d in dtypes)
        raise ValueError(f"{key}.DTYPE={name!r}; {device_type} has auto, {names}")
    return dtype


def autocast(device_type: str, dtype: torch.dtype, enabled: bool = True) -> AbstractContextManager:
    """Mixed precision on this device type."""
    own = _own_amp(device_type)
    if own:
        return own.autocast(dtype=dtype, enabled=enabled)
    return torch.autocast(device_type, dtype=dtype, enabled=enabled)


def full_precision(device_type: str) -> AbstractContextManager:
    """A region in which autocast is off, whatever the caller switched on."""
    own = _own_amp(device_type)
    if own:
        return own.autocast(enabled=False)
    if not torch.amp.is_autocast_available(device_type):  # torch 2.4 on MPS refuses to be asked
        return nullcontext()
    return torch.autocast(device_type, enabled=False)


def grad_scaler(device_type: str, dtype: torch.dtype) -> torch.amp.GradScaler:
    """Loss scaling; only float16 needs it, for other types it does nothing."""
    own = _own_amp(device_type)
    if own:
        return own.GradScaler(enabled=dtype == torch.float16)
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


def retry_on_cpu(function: Callable[..., _Result], *args, **kwargs) -> _Result:
    """`function(*args, **kwargs)`; if a device's memory is full, once more, then on the CPU.

    Only arguments that are tensors, or have their `.device` and `.to`, are moved; containers
    stay where they are.
    """
    values = [*args, *kwargs.values()]
    found = {getattr(value, "device", None) for value in values}
    used = [d for d in found if isinstance(d, torch.device) and d.type != "cpu"]
    for attempt in range(2):
        try:
            return function(*args, **kwargs)
        except RuntimeError as error:
            if not is_out_of_memory(error) or not used:
                raise
        # Not within `except`: the error would keep the failed call's tensors alive.
        for device in used if attempt == 0 else []:
            empty_cache(device)
    logger.info("Out of memory: %s runs on the CPU", function)

    def on_cpu(value: Any) -> Any:
        return value.to("cpu") if getattr(value, "device", None) in used else value

    return function(*map(on_cpu, args), **{name: on_cpu(v) for name, v in kwargs.items()})
