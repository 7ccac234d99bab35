"""Each way to compute deformable attention that runs on the device, beside the reference.

Sizes are those of an encoder layer of the official models: stride 32, 16 and 8 of the picture.
"""

import argparse
import functools
import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.measuring import (
    alone,
    interleaved,
    kept_for_backward,
    peak_growth,
    spread,
    times_as_fast,
)
from benchmarks.tables import Table
from mask2former.layers.ms_deform_attn import MS_DEFORM_ATTN_REGISTRY, build_ms_deform_attn
from mask2former.modeling.pixel_decoder.msdeformattn import levels_and_centers

NUM_HEADS, HEAD_DIM, NUM_POINTS, STRIDES = 8, 32, 4, (32, 16, 8)
REACH = 4.0  # pixels, about as far as the official models look at first
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
BASE = "Reference"
FORWARD, BOTH = "forward", "forward + backward"


class Work:
    """Inputs of one size and type, and what an op does with them."""

    def __init__(self, size: tuple[int, int], batch_size: int, dtype: str, device: str) -> None:
        shapes = shapes_of(size)
        self.device = torch.device(device)
        self.levels, self.places = levels_and_centers(tuple(shapes), self.device)
        num_queries = sum(map(math.prod, shapes))
        per_query = (batch_size, num_queries, NUM_HEADS, len(shapes), NUM_POINTS)
        generator = torch.Generator().manual_seed(0)
        random = functools.partial(torch.randn, generator=generator)
        self.learned = [  # value, offsets, logits
            x.to(self.device, TYPES[dtype]).requires_grad_()
            for x in (
                random(batch_size, num_queries, NUM_HEADS, HEAD_DIM),
                random(*per_query, 2) * REACH,
                random(per_query),
            )
        ]

    def run(self, op: str) -> Tensor:
        value, offsets, logits = self.learned
        how = build_ms_deform_attn(op, self.device.type)
        return how.run(value, self.levels, self.places, offsets, logits)

    def forward(self, op: str) -> None:
        with torch.no_grad():
            self.run(op)

    def both(self, op: str) -> None:
        output = self.run(op)
        torch.autograd.grad(output, self.learned, torch.ones_like(output))


def shapes_of(size: tuple[int, int]) -> list[tuple[int, int]]:
    """(H,W) of each level."""
    return [tuple(math.ceil(n / stride) for n in size) for stride in STRIDES]


def times(ops: list[str], repeat: int, dtype: str, device: str, *size) -> dict[str, list[float]]:
    """Seconds of "OP, forward" and "OP, forward + backward" in each round, in this process."""
    work = Work(*size, dtype, device)
    runs: dict[str, Callable[[], None]] = {}
    for op in ops:
        runs[f"{op}, {FORWARD}"] = functools.partial(work.forward, op)
        runs[f"{op}, {BOTH}"] = functools.partial(work.both, op)
    return interleaved(runs, repeat, work.device, f"deformable attention, {dtype}")


def memory(op: str, part: str, dtype: str, device: str, *size) -> tuple[float, int]:
    """Bytes that are held at most, and those that are kept for backward, in this process."""
    work = Work(*size, dtype, device)
    if part == FORWARD:
        return peak_growth(lambda: work.forward(op), work.device), 0
    peak = peak_growth(lambda: work.both(op), work.device)
    return peak, kept_for_backward(lambda: work.run(op), work.learned)


def memories(ops: list[str], *how) -> dict[tuple[str, str], tuple[float, int]]:
    """`memory` of each part and op, in this process: on a CPU, where allocations are counted."""
    return {key: memory(*reversed(key), *how) for key in itertools.product((FORWARD, BOTH), ops)}


def measure(args: argparse.Namespace) -> list[Table]:
    """
    Raises:
        ValueError: one of `args.contenders` is no op, or does not run on the device.
    """
    device_type = torch.device(args.device).type
    usable = [name for name, op in MS_DEFORM_ATTN_REGISTRY if not op.why_not(device_type)]
    ops = {name: build_ms_deform_attn(name, device_type) for name in args.contenders or usable}
    auto = build_ms_deform_attn("auto", device_type)
    size = (args.size, args.batch_size)
    rows = []
    for dtype in TYPES:
        how = (dtype, args.device, *size)
        seconds = alone(times, list(ops), args.repeat, *how)
        counted = alone(memories, list(ops), *how) if device_type == "cpu" else {}
        for part, name in itertools.product((FORWARD, BOTH), ops):
            own, base = seconds[f"{name}, {part}"], seconds.get(f"{BASE}, {part}")
            peak, kept = counted.get((part, name)) or alone(memory, name, part, *how)
            rows.append(
                {
                    "type": dtype,
                    "work": part,
                    "op": f"{name} (auto)" if ops[name] is auto else name,
                    **spread(own, "ms"),
                    f"times as fast as {BASE}": times_as_fast(own, base),
                    "at most MB": peak / 2**20,
                    "kept for backward MB": kept / 2**20,
                }
            )
    title = (
        f"Deformable attention: {sum(map(math.prod, shapes_of(args.size)))} queries of "
        f"{args.batch_size} image(s), {NUM_HEADS} heads of {HEAD_DIM} channels, {len(STRIDES)} "
        f"levels, {NUM_POINTS} points, on {args.device}"
    )
    return [Table(title, rows)]
