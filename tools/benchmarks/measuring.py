"""Time and memory of contenders that are to be compared.

The package mask2former is imported only once something has been measured, or by what is measured:
what it takes must not count as memory of a model that does without it.
"""

import itertools
import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor
from tqdm import trange

_Result = TypeVar("_Result")
Run = Callable[[], Any]


def alone(function: Callable[..., _Result], *args) -> _Result:
    """`function(*args)` in a fresh interpreter: what one allocates must not count for another."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def interleaved(
    runs: dict[str, Run], repeat: int, device: torch.device, title: str
) -> dict[str, list[float]]:
    """Seconds of each run in each round; in a round all have their turn, one after the other.

    So what else the machine does is shared by all. A first round is not counted: in it memory is
    allocated, kernels are chosen and models are compiled.
    """
    from mask2former import device as devices

    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for round_number in trange(repeat + 1, desc=title, leave=False):
        for name, run in runs.items():
            devices.synchronize(device)
            start = time.perf_counter()
            run()
            devices.synchronize(device)
            if round_number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def spread(seconds: list[float], unit: str = "s") -> dict[str, float]:
    """Median, least and most, in "s" or "ms"."""
    factor = {"s": 1, "ms": 1000}[unit]
    found = {"median": statistics.median(seconds), "least": min(seconds), "most": max(seconds)}
    return {f"{name} {unit}": factor * value for name, value in found.items()}


def times_as_fast(own: list[float], other: list[float] | None) -> float | None:
    """The median over the rounds of the other's time by the own of the same round."""
    return statistics.median(b / a for a, b in zip(own, other)) if other else None


def peak_gb(build: Callable[..., Run], device: str, *args) -> float | None:
    """Peak memory of a process that builds `build(device, *args)` and runs it twice.

    On an accelerator what torch allocated there, on a CPU all that is resident. None where the
    device does not tell.
    """
    run = build(device, *args)
    for _ in range(2):
        run()
    from mask2former import device as devices

    peak = devices.max_memory_mb(torch.device(device))
    return None if peak is None else peak / 1024


def peak_growth(run: Run, device: torch.device) -> float:
    """The most bytes that `run` held at a time beyond what there was before.

    On a CPU allocations are counted. An accelerator is asked for its peak, which must not have been
    higher before: in a process of its own.
    """
    if device.type == "cpu":
        with torch.profiler.profile(profile_memory=True) as profiler:
            run()
        events = profiler.profiler.kineto_results.events()
        held = itertools.accumulate(e.nbytes() for e in events if e.name() == "[memory]")
        return float(max(held, default=0))
    from mask2former import device as devices

    before = devices.max_memory_mb(device) or 0.0
    run()
    return ((devices.max_memory_mb(device) or 0.0) - before) * 1024**2


def kept_for_backward(forward: Callable[[], Tensor], inputs: list[Tensor]) -> int:
    """Bytes that autograd keeps until backward, beyond the inputs and the output."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = forward()
    for tensor in (*inputs, output):
        kept.pop(tensor.untyped_storage().data_ptr(), None)
    return sum(kept.values())
