"""Deformable attention by kernels in C for the CPU, compiled when they are first needed.

B batch, Q queries, M heads, D channels a head, L levels, P points, S = sum of all H * W.
"""

import ctypes
import functools
import math
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from mask2former.layers.levels import Levels
from mask2former.layers.ms_deform_attn.build import MS_DEFORM_ATTN_REGISTRY, MSDeformAttnOp
from mask2former.layers.ms_deform_attn.custom_op import register
from mask2former.layers.ms_deform_attn.native_library import BuildError, load_library

TYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float64: "float64"}
POINTERS = (
    *("value", "reference_points", "offsets", "logits", "grad"),
    *("output", "grad_value", "grad_offsets", "grad_logits", "scratch", "shapes"),
)
NUMBERS = (
    *("num_pixels", "num_queries", "num_heads", "dim", "num_levels", "num_points"),
    *("num_tasks", "num_parts", "next_worker", "next_task"),
)
PROCESS = os.getpid()


class Job(ctypes.Structure):
    """As in native.c."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in POINTERS),
        *((name, ctypes.c_int64) for name in NUMBERS),
    ]


@functools.cache
def kernels() -> ctypes.CDLL:
    library = load_library(Path(__file__).with_suffix(".c"))
    for name in TYPES.values():
        getattr(library, f"scratch_bytes_{name}").restype = ctypes.c_int64
    return library


@functools.cache
def torch_threads() -> ctypes._CFuncPtr | None:
    """GOMP_parallel of the OpenMP runtime that torch brought, if it is one that has it."""
    run = getattr(ctypes.CDLL(None), "GOMP_parallel", None) if os.name == "posix" else None
    if run is not None:
        run.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
    return run


def run_in_threads(kernel: ctypes._CFuncPtr, job: Job, num_threads: int) -> None:
    """Run it in so many threads at once; they share the tasks.

    The threads are those of torch where that can be. After an operation of torch they wait for the
    next one for some milliseconds without giving up their cores, which threads beside them would
    lack. In a forked process they are missing, and their runtime would wait for them forever.
    """
    parallel = torch_threads()
    if parallel is not None and os.getpid() == PROCESS:
        parallel(ctypes.cast(kernel, ctypes.c_void_p), ctypes.addressof(job), num_threads, 0)
        return
    threads = [
        threading.Thread(target=kernel, args=(ctypes.byref(job),)) for _ in range(num_threads - 1)
    ]
    for thread in threads:
        thread.start()
    kernel(ctypes.byref(job))
    for thread in threads:
        thread.join()


def split_maps(num_maps: int, num_threads: int) -> int:
    """Into how many parts the queries of each map go, for no more than a tenth of time idle."""
    for num_parts in range(1, num_threads):
        num_tasks = num_maps * num_parts
        if num_tasks >= 0.9 * num_threads * math.ceil(num_tasks / num_threads):
            return num_parts
    return num_threads


def run_kernel(
    name: str, tensors: dict[str, Tensor], shapes: Sequence[int], num_parts: int, num_threads: int
) -> None:
    """Let the kernel called so read and fill contiguous tensors, called as in the job."""
    value, offsets = tensors["value"], tensors["offsets"]
    batch, num_pixels, num_heads, dim = value.shape
    sizes = (ctypes.c_int64 * len(shapes))(*shapes)
    assert num_pixels == sum(map(math.prod, zip(shapes[::2], shapes[1::2])))
    assert offsets.shape[3] == len(shapes) // 2 and min(shapes, default=0) >= 0
    job = Job(
        num_pixels=num_pixels,
        num_queries=offsets.shape[1],
        num_heads=num_heads,
        dim=dim,
        num_levels=offsets.shape[3],
        num_points=offsets.shape[4],
        num_tasks=batch * num_heads * num_parts,
        num_parts=num_parts,
        shapes=ctypes.addressof(sizes),
        **{called: tensor.data_ptr() for called, tensor in tensors.items()},
    )
    num_threads = min(num_threads, job.num_tasks)
    if not num_threads:
        return
    library, suffix = kernels(), TYPES[value.dtype]
    scratch_bytes = getattr(library, f"scratch_bytes_{suffix}")(ctypes.byref(job))
    scratch = torch.empty(num_threads * scratch_bytes, dtype=torch.uint8)
    job.scratch = scratch.data_ptr()
    # An interrupt, or a thread that cannot be started, does not end those that are running.
    job.memory = tensors, sizes, scratch
    run_in_threads(getattr(library, f"{name}_{suffix}"), job, num_threads)


def forward(
    value: Tensor,
    shapes: Sequence[int],
    reference_points: Tensor,
    offsets: Tensor,
    logits: Tensor,
) -> Tensor:
    """Shapes: (B,S,M,D), 2L, (Q,2), (B,Q,M,L,P,2), (B,Q,M,L,P) -> (B,Q,M*D)"""
    batch, _, num_heads, dim = value.shape
    output = value.new_empty(batch, offsets.shape[1], num_heads * dim)
    tensors = {
        "value": value,
        "reference_points": reference_points,
        "offsets": offsets,
        "logits": logits,
        "output": output,
    }
    num_threads = torch.get_num_threads()
    num_parts = split_maps(batch * num_heads, num_threads)
    run_kernel("forward", tensors, shapes, num_parts, num_threads)
    return output


def backward(
    grad: Tensor,
    value: Tensor,
    shapes: Sequence[int],
    reference_points: Tensor,
    offsets: Tensor,
    logits: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Shapes: (B,Q,M*D) and those of the inputs -> those of value, offsets and logits"""
    inputs = {"value": value, "offsets": offsets, "logits": logits}
    grads = {f"grad_{name}": torch.empty_like(x) for name, x in inputs.items()}
    tensors = {**inputs, **grads, "grad": grad, "reference_points": reference_points}
    run_kernel("backward", tensors, shapes, 1, torch.get_num_threads())
    return tuple(grads.values())


attend = register("ms_deform_attn_native", "cpu", forward, backward)


@MS_DEFORM_ATTN_REGISTRY.register()
class Native(MSDeformAttnOp):
    """Kernels in C: locations, softmax and sum in one, keeping nothing but the inputs."""

    @staticmethod
    def rank(device_type: str) -> int:
        return 4

    @staticmethod
    def why_not(device_type: str) -> str:
        if device_type != "cpu":
            return "its kernels are for the CPU"
        try:
            kernels()
        except BuildError as error:
            return str(error)
        return ""

    @staticmethod
    def run(
        value: Tensor, levels: Levels, reference_points: Tensor, offsets: Tensor, logits: Tensor
    ) -> Tensor:
        # All in one type that there are kernels for; with autocast that is what they come in.
        dtype = functools.reduce(torch.promote_types, (x.dtype for x in (value, offsets, logits)))
        is_mixed = {x.dtype for x in (value, offsets, logits)} != {dtype}
        if is_mixed or dtype not in TYPES:
            dtype = torch.promote_types(dtype, torch.float32)
        output = attend(
            value.to(dtype),
            [n for shape in levels.shapes for n in shape],
            reference_points.to(torch.promote_types(dtype, torch.float32)),
            offsets.to(dtype),
            logits.to(dtype),
        )
        return output.to(value.dtype)
