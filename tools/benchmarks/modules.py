"""What each module of a model takes: parameters, operations, time, and memory for backward."""

import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import trange

from benchmarks.floors import counting
from benchmarks.tables import Cell, Table
from mask2former import device as devices

CONTAINERS = (nn.ModuleList, nn.ModuleDict)  # which are not called themselves
TOTAL = ""  # the name of the model itself


class Meter:
    """Reads a quantity that only grows, before and after each call of each watched module."""

    def __init__(self, model: nn.Module, names: list[str]) -> None:
        self.read: Callable[[], float] = lambda: 0.0
        self.found: dict[str, float] = defaultdict(float)
        for name in names:
            module = model.get_submodule(name)
            method = "forward_features" if hasattr(module, "forward_features") else "forward"
            setattr(module, method, self.watched(name, getattr(module, method)))

    def watched(self, name: str, function: Callable) -> Callable:
        def run(*args, **kwargs) -> Any:
            before = self.read()
            result = function(*args, **kwargs)
            self.found[name] += self.read() - before
            return result

        return run

    def of(self, run: Callable[[], Any], read: Callable[[], float]) -> dict[str, float]:
        """How much it grew in each module during one run."""
        self.read = read
        self.found.clear()
        run()
        return dict(self.found)


class Kept:
    """Bytes that autograd keeps for backward, beyond parameters and buffers."""

    def __init__(self, model: nn.Module) -> None:
        self.known = {t.untyped_storage().data_ptr() for t in model.state_dict().values()}
        self.total = 0

    def keep(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.known:
            self.known.add(storage.data_ptr())
            self.total += storage.nbytes()
        return tensor

    def run(self, function: Callable[[], Any]) -> None:
        with torch.autograd.graph.saved_tensors_hooks(self.keep, lambda tensor: tensor):
            function()


def watched_names(model: nn.Module, depth: int) -> tuple[list[str], list[str]]:
    """Modules to tell of, and those to watch: a container's own are watched in its place."""
    told, watched = [], []
    for name, _ in model.named_modules():
        level = len(name.split(".")) if name else 0
        parent = model.get_submodule(name.rpartition(".")[0])
        if level <= depth:
            told.append(name)
        in_a_container = isinstance(parent, CONTAINERS) and name.rpartition(".")[0] in told
        if level <= depth or in_a_container:
            watched.append(name)
    return told, [n for n in watched if not isinstance(model.get_submodule(n), CONTAINERS)]


def sum_of(name: str, found: dict[str, float]) -> float | None:
    """What was found of a module, or of those in it; None if none of them was called."""
    if name in found:
        return found[name]
    inner = [n for n in found if n.startswith(f"{name}.")]
    outermost = [n for n in inner if not any(n.startswith(f"{other}.") for other in inner)]
    return sum(found[n] for n in outermost) if outermost else None


def analyze(model: nn.Module, batch: list[dict], depth: int, repeat: int) -> Table:
    """Inference for time and operations, the forward pass of training for memory."""
    device = model.device
    told, watched = watched_names(model, depth)
    meter = Meter(model, watched)

    def now() -> float:
        devices.synchronize(device)
        return time.perf_counter()

    def infer() -> None:
        with torch.no_grad():
            model(batch)

    model.eval()
    infer()
    times = [meter.of(infer, now) for _ in trange(repeat, desc="inference", leave=False)]
    seconds = {name: statistics.median(t[name] for t in times) for name in times[0]}
    with counting(model) as counter:
        operations = meter.of(infer, lambda: counter.total)
    model.train()
    kept = Kept(model)
    memory = meter.of(lambda: kept.run(lambda: model(batch)), lambda: kept.total)

    def row(name: str) -> dict[str, Cell]:
        own = sum(p.numel() for p in model.get_submodule(name).parameters())
        took, done, held = (sum_of(name, found) for found in (seconds, operations, memory))
        return {
            "module": name or "total",
            "parameters M": own / 1e6,
            "GFLOP": None if done is None else done / 1e9,
            "ms": None if took is None else 1000 * took,
            "time %": None if took is None else 100 * took / seconds[TOTAL],
            "kept for backward MB": None if held is None else held / 2**20,
        }

    height, width = batch[0]["image"].shape[-2:]
    rows = [row(name) for name in told if name != TOTAL]
    title = f"{type(model).__name__}: {len(batch)} image(s) of {height}x{width} on {device}"
    return Table(title, [*rows, row(TOTAL)])
