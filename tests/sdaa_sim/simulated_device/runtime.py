"""What `torch.<name>` offers: devices, memory, random numbers, streams. CPU time is all there is.

The same names as torch.cuda has, as far as a user of a device needs them.
"""

from collections.abc import Iterable
from types import SimpleNamespace, TracebackType

import torch

from simulated_device import settings

__all__ = [
    "Event",
    "Stream",
    "current_device",
    "current_stream",
    "default_generators",
    "default_stream",
    "device",
    "device_count",
    "empty_cache",
    "get_device_name",
    "get_device_properties",
    "get_rng_state",
    "get_rng_state_all",
    "init",
    "initial_seed",
    "is_available",
    "is_bf16_supported",
    "is_initialized",
    "manual_seed",
    "manual_seed_all",
    "max_memory_allocated",
    "max_memory_reserved",
    "mem_get_info",
    "memory_allocated",
    "memory_reserved",
    "memory_stats",
    "reset_peak_memory_stats",
    "seed_all",
    "set_device",
    "set_rng_state",
    "set_rng_state_all",
    "set_stream",
    "stream",
    "synchronize",
]

_C = torch.ops.device_sim
_Device = torch.device | int | str | None

default_generators: tuple[torch.Generator, ...] = ()
was_set = False  # whether set_device was called in this process


def _index(device: _Device) -> int:
    """Index of a device of this type; the current one for None or a device without index."""
    if isinstance(device, str):
        device = torch.device(device)
    if isinstance(device, torch.device):
        if device.type != settings.name():
            raise ValueError(f"Expected a {settings.name()} device, but got: {device}")
        device = device.index
    index = current_device() if device is None else device
    if not 0 <= index < device_count():
        raise RuntimeError(f"invalid device ordinal {index}: there are {device_count()} devices")
    return index


def is_available() -> bool:
    return device_count() > 0


def is_initialized() -> bool:
    return True


def init() -> None:
    pass


def device_count() -> int:
    return len(settings.visible_devices())


def current_device() -> int:
    return _C.get_device()


def set_device(device: _Device) -> None:
    global was_set
    _C.set_device(_index(device))
    was_set = True
    settings.log("set_device", device=current_device())


def _exchange_device(index: int) -> int:
    before = current_device()
    if index >= 0:
        _C.set_device(_index(index))
    return before


_maybe_exchange_device = _exchange_device


class device:
    """Context in which another device is the current one."""

    def __init__(self, device: _Device) -> None:
        self.index = _index(device)

    def __enter__(self) -> None:
        self.before = _exchange_device(self.index)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _exchange_device(self.before)


def synchronize(device: _Device = None) -> None:
    settings.log("synchronize", device=_index(device))


def get_device_name(device: _Device = None) -> str:
    return f"simulated {settings.name().upper()} {settings.visible_devices()[_index(device)]}"


def get_device_properties(device: _Device = None) -> SimpleNamespace:
    total = int(settings.setting("MEMORY", str(15 * 1024**3)))
    return SimpleNamespace(name=get_device_name(device), total_memory=total, major=1, minor=0)


def is_bf16_supported() -> bool:
    return True


# Memory: nothing is cached, so that what is reserved is what is allocated.


def empty_cache() -> None:
    settings.log("empty_cache")


def memory_allocated(device: _Device = None) -> int:
    return _C.memory(_index(device))[0]


def max_memory_allocated(device: _Device = None) -> int:
    return _C.memory(_index(device))[1]


memory_reserved = memory_allocated
max_memory_reserved = max_memory_allocated


def reset_peak_memory_stats(device: _Device = None) -> None:
    _C.reset_peak(_index(device))


def memory_stats(device: _Device = None) -> dict[str, int]:
    now, peak, num_allocations = _C.memory(_index(device))
    return {
        "allocated_bytes.all.current": now,
        "allocated_bytes.all.peak": peak,
        "reserved_bytes.all.current": now,
        "reserved_bytes.all.peak": peak,
        "allocation.all.allocated": num_allocations,
    }


def mem_get_info(device: _Device = None) -> tuple[int, int]:
    total = get_device_properties(device).total_memory
    return total - memory_allocated(device), total


def _fail_next(min_bytes: int = 0, count: int = 1, skip: int = 0) -> None:
    """The next `count` allocations of `min_bytes` or more, after `skip` of them, run out of memory.

    For tests. `count` 0 takes back what was left.
    """
    _C.fail_next(min_bytes, count, skip)


# Random numbers


def make_default_generators() -> None:
    global default_generators
    made = [torch.Generator(f"{settings.name()}:{i}") for i in range(device_count())]
    for generator in made:
        _C.set_default_generator(generator)
    default_generators = tuple(made)


def manual_seed(seed: int) -> None:
    settings.log("manual_seed", seed=int(seed), device=current_device())
    default_generators[current_device()].manual_seed(int(seed))


def manual_seed_all(seed: int) -> None:
    settings.log("manual_seed_all", seed=int(seed))
    for generator in default_generators:
        generator.manual_seed(int(seed))


def seed_all() -> None:
    manual_seed_all(default_generators[0].seed())


def initial_seed() -> int:
    return default_generators[current_device()].initial_seed()


def get_rng_state(device: _Device = None) -> torch.Tensor:
    return default_generators[_index(device)].get_state()


def set_rng_state(state: torch.Tensor, device: _Device = None) -> None:
    default_generators[_index(device)].set_state(state)


def get_rng_state_all() -> list[torch.Tensor]:
    return [generator.get_state() for generator in default_generators]


def set_rng_state_all(states: Iterable[torch.Tensor]) -> None:
    for generator, state in zip(default_generators, states):
        generator.set_state(state)


def _is_in_bad_fork() -> bool:
    return _forked


_forked = False


def after_fork() -> None:
    """A forked process cannot use the device, which its parent has started."""
    global _forked
    _forked = True
    _C.forked()


# Streams: a call returns when its work is done, so that their order is never wrong.


# Functions, not classes: torch's own methods want exactly torch.Stream and torch.Event.


def Stream(device: _Device = None, priority: int = 0) -> torch.Stream:
    return torch.Stream(torch.device(settings.name(), _index(device)), priority=priority)


def Event(enable_timing: bool = False, blocking: bool = False) -> torch.Event:
    return torch.Event(settings.name(), enable_timing=enable_timing, blocking=blocking)


def _stream(device: _Device, stream_id: int) -> torch.Stream:
    kind = torch._C._autograd.DeviceType.PrivateUse1.value
    return torch.Stream(stream_id=stream_id, device_index=_index(device), device_type=int(kind))


def current_stream(device: _Device = None) -> torch.Stream:
    return _stream(device, _C.get_stream(_index(device)))


def default_stream(device: _Device = None) -> torch.Stream:
    return _stream(device, 0)


def set_stream(stream: torch.Stream | None) -> None:
    if stream is not None:
        _C.set_stream(stream.device_index, stream.stream_id)


class stream:
    """Context in which another stream, and its device, is the current one."""

    def __init__(self, stream: torch.Stream | None) -> None:
        self.stream = stream

    def __enter__(self) -> None:
        if self.stream is not None:
            self.device = device(self.stream.device_index)
            self.device.__enter__()
            self.before = current_stream()
            set_stream(self.stream)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.stream is not None:
            set_stream(self.before)
            self.device.__exit__(kind, error, traceback)
