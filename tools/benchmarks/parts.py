"""Time of each part of our model, beside the least that this machine could take for it.

There are two floors: the operations at the speed of a large matrix product, and the bytes that go
in and out (weights, inputs, outputs, in backward their gradients) at the speed of a large copy.
"""

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import trange

from benchmarks.floors import (
    Counter,
    copy_gb_per_s,
    counting,
    matmul_gflops,
    num_bytes,
    tensors_in,
)
from benchmarks.measuring import alone
from benchmarks.our_model import Ours, as_batch, build_model, check_not_compiled
from benchmarks.pictures import Picture, read_pictures
from benchmarks.tables import Table
from benchmarks.whole_model import FLOAT32
from mask2former import device as devices
from mask2former.engine import Trainer

INFERENCE, FORWARD, BACKWARD = "inference", "training: forward", "training: backward"
UPDATE, TRAINING, WHOLE = "training: update", "training", "all of it"
WORKS = [INFERENCE, FORWARD, BACKWARD, UPDATE, TRAINING]  # in this order they are told
Key = tuple[str, str]  # work, part


def parts_of(model: nn.Module) -> dict[str, tuple[nn.Module, str]]:
    """The parts, each a module and the method that is called of it."""
    head = model.sem_seg_head
    return {
        "backbone": (model.backbone, "forward"),
        "pixel decoder": (head.pixel_decoder, "forward_features"),
        "transformer decoder": (head.predictor, "forward"),
        "criterion": (model.criterion, "forward"),
        "post-processing": (model, "infer"),
    }


class Watch:
    """What each part took in one run: seconds, bytes, and operations if a counter is given.

    In training the graph is cut behind each part, so that backward runs part by part as well.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.device = device
        self.counter: Counter | None = None
        self.calls: list[tuple] = []  # part, weights, inputs, outputs, the same cut off
        self.forget()
        for name, (module, method) in parts_of(model).items():
            weights = [] if module is model else [*module.parameters(), *module.buffers()]
            setattr(module, method, self.watched(name, getattr(module, method), weights))

    def forget(self) -> None:
        """Begin another run."""
        self.seconds: dict[Key, float] = defaultdict(float)
        self.bytes: dict[Key, int] = defaultdict(int)
        self.operations: dict[Key, int] = defaultdict(int)
        self.calls.clear()

    def timed(self, key: Key, function: Callable[[], Any]) -> Any:
        devices.synchronize(self.device)
        done = self.counter.total if self.counter else 0
        start = time.perf_counter()
        result = function()
        devices.synchronize(self.device)
        self.seconds[key] += time.perf_counter() - start
        self.operations[key] += self.counter.total - done if self.counter else 0
        return result

    def watched(self, part: str, function: Callable, weights: list[Tensor]) -> Callable:
        def run(*args, **kwargs) -> Any:
            is_training = torch.is_grad_enabled()
            key = (FORWARD if is_training else INFERENCE, part)
            inputs = tensors_in([args, kwargs])
            outputs = self.timed(key, lambda: function(*args, **kwargs))
            self.bytes[key] += num_bytes([*weights, *inputs, *tensors_in(outputs)])
            if not is_training:
                return outputs
            cut = cut_off(outputs)
            self.calls.append((part, weights, inputs, outputs, cut))
            return cut

        return run

    def backward(self, losses: dict[str, Tensor]) -> None:
        """From the losses back, part by part."""
        sum(losses.values()).backward()  # gives the last part's outputs their gradients
        for part, weights, inputs, outputs, cut in reversed(self.calls):
            pairs = list(zip(tensors_in(outputs), tensors_in(cut)))
            pairs = [(o, c.grad) for o, c in pairs if o.requires_grad and c.grad is not None]
            key = (BACKWARD, part)
            self.timed(key, lambda pairs=pairs: torch.autograd.backward(*zip(*pairs)))
            gradients = [t for t in (*weights, *inputs) if t.requires_grad]
            arrived = [gradient for _, gradient in pairs]
            self.bytes[key] += num_bytes([*weights, *inputs, *gradients, *arrived])


def cut_off(value: Any) -> Any:
    """The same numbers, at which backward ends; the same tensor twice stays the same."""
    known = {id(t): t.detach().requires_grad_(t.requires_grad) for t in tensors_in(value)}

    def replaced(value: Any) -> Any:
        if isinstance(value, Tensor):
            return known[id(value)]
        if isinstance(value, dict):
            return {key: replaced(value[key]) for key in value}
        if isinstance(value, (list, tuple)):
            items = [replaced(v) for v in value]
            return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
        return value

    return replaced(value)


def run_parts(
    device: str, ours: Ours, pictures: list[Picture], repeat: int
) -> tuple[dict[Key, list[float]], dict[Key, int], dict[Key, int], dict[str, float]]:
    """Seconds of each round, bytes and operations of each part, and the ceilings."""
    cfg = ours.config(device)
    amp = cfg.SOLVER.AMP
    where = torch.device(device)
    amp_dtype = devices.amp_dtype(where.type, amp.DTYPE) if amp.ENABLED else torch.float32
    model, batch = build_model(cfg), as_batch(pictures)
    optimizer = Trainer.build_optimizer(cfg, model)
    watch = Watch(model, where)

    def infer() -> None:
        model.eval()
        with torch.no_grad():
            model(batch)

    def train() -> None:
        model.train()
        optimizer.zero_grad()
        with devices.autocast(where.type, amp_dtype or torch.bfloat16, amp.ENABLED):
            losses = model(batch)
        watch.backward(losses)
        watch.timed((UPDATE, "optimizer"), optimizer.step)

    seconds: dict[Key, list[float]] = defaultdict(list)
    ceilings: dict[str, float] = defaultdict(float)
    for round_number in trange(repeat + 1, desc="parts", leave=False):
        watch.forget()
        for work, run in ((INFERENCE, infer), (TRAINING, train)):
            watch.timed((work, WHOLE), run)
        found = {
            "float32": matmul_gflops(where, torch.float32),
            "bfloat16": matmul_gflops(where, torch.bfloat16),
            "copy": copy_gb_per_s(where),
        }
        ceilings |= {name: max(ceilings[name], value) for name, value in found.items()}
        for key, value in watch.seconds.items() if round_number else ():
            seconds[key].append(value)
    watch.forget()
    with counting(model) as watch.counter:
        for work, run in ((INFERENCE, infer), (TRAINING, train)):
            watch.timed((work, WHOLE), run)
    learned = [p for p in model.parameters() if p.requires_grad]
    # In go weights, gradients and two moments, out go all but the gradients.
    watch.bytes[UPDATE, "optimizer"] = 7 * num_bytes(learned)
    for work in (INFERENCE, TRAINING):
        watch.bytes[work, WHOLE] = sum(n for k, n in watch.bytes.items() if k[0].startswith(work))
    return dict(seconds), dict(watch.bytes), dict(watch.operations), dict(ceilings)


def measure(args: argparse.Namespace) -> list[Table]:
    """
    Raises:
        ValueError: the model is compiled.
    """
    ours = Ours(args.config_file, ("MODEL.WEIGHTS", "", *FLOAT32, *args.opts))
    cfg = ours.config(args.device)
    check_not_compiled(cfg)
    pictures = read_pictures(args, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES)
    found = alone(run_parts, args.device, ours, pictures, args.repeat)
    seconds, sizes, operations, ceilings = found
    types = {False: "float32", True: "bfloat16"}
    rows = []
    for key, own in seconds.items():
        work, part = key
        is_half = (cfg.TEST if work == INFERENCE else cfg.SOLVER).AMP.ENABLED
        median = statistics.median(own)
        arithmetic = operations[key] / ceilings[types[is_half]] / 1e9
        traffic = sizes[key] / ceilings["copy"] / 1e9
        rows.append(
            {
                "work": work,
                "part": part,
                "median ms": 1000 * median,
                "least ms": 1000 * min(own),
                "GFLOP": operations[key] / 1e9,
                "arithmetic floor ms": 1000 * arithmetic,
                "MB": sizes[key] / 2**20,
                "bytes floor ms": 1000 * traffic,
                "share of the ceiling %": 100 * max(arithmetic, traffic) / median,
            }
        )
    height, width = pictures[0].image.shape[-2:]
    ceiling = (
        f"Ceilings: matrix products {ceilings['float32']:.0f} GFLOP/s in float32 and "
        f"{ceilings['bfloat16']:.0f} in bfloat16, copies {ceilings['copy']:.1f} GB/s."
    )
    title = f"Parts: {len(pictures)} image(s) of {height}x{width}, {args.num_targets} targets"
    rows.sort(key=lambda row: WORKS.index(row["work"]))
    return [Table(title, rows, (ceiling,))]
