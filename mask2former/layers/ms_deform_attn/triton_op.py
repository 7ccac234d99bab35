"""Deformable attention by two kernels in Triton: one forward, one backward.

They find locations and softmax themselves, so that beside inputs, output and gradients there is
only one buffer, the values' gradient in the type they count in: float32, or float64 if an input is
float64. They read of the levels what lies on the device: nothing waits for it or is copied to it.

What is known of them: forward and gradients are tested on a CPU, by Triton's interpreter. Releases
of Triton from 3.0 to 3.9 compile them for compute capability 8.0 and 9.0, and at the official
models' sizes no register runs over into memory; no GPU was needed to see that. How fast they are on
one has not been measured: the constants are reasoned.

The order in which queries add to the gradient of a value is not fixed, so that its last digits
differ from run to run.

B batch, Q queries, M heads, D channels a head, L levels, P points, S = sum of all H * W.
"""

import functools
import importlib
import importlib.util
import math
import subprocess
import textwrap
from types import ModuleType

import torch
from torch import Tensor

from mask2former.device import current, device_count, runs_triton
from mask2former.layers.levels import Levels, describe_levels
from mask2former.layers.ms_deform_attn.build import MS_DEFORM_ATTN_REGISTRY, MSDeformAttnOp
from mask2former.layers.ms_deform_attn.custom_op import SIZES_AND_STARTS, register

PACKAGE = "triton"
OLDEST = 3  # major version; torch 2.4 came with 3.0

# What a warp reads of one of the four corners. A program of one warp needs no barriers; 512 numbers
# are a query and head of the official models, 12 x 32 padded to 16 x 32. Backward holds the four
# corners in float32 at once; forward reads as many bytes, so more numbers of half precision.
BACKWARD_NUMBERS = 512
FORWARD_BYTES = 2048
MOST_WARPS = 8  # for many more samples or channels than the official models have


@functools.cache
def load_kernels() -> ModuleType:
    """The kernels, and with them triton: seconds, and not installed everywhere."""
    return importlib.import_module("mask2former.layers.ms_deform_attn.triton_kernels")


def counting_type(*inputs: Tensor) -> torch.dtype:
    return torch.float64 if any(x.dtype == torch.float64 for x in inputs) else torch.float32


def launch(name: str, results: tuple[Tensor, ...], inputs: tuple[Tensor, ...], size: int) -> None:
    """Run a kernel that writes the results, with tiles of about `size` numbers a warp.

    Each program writes its own queries of one head and image; `grad_value` alone is shared.
    """
    value, _, _, _, offsets, logits = inputs[-6:]
    batch, num_pixels, num_heads, dim = value.shape
    num_queries, num_points = offsets.shape[1], offsets.shape[4]
    num_samples = offsets.shape[3] * num_points
    block_samples, block_channels = (1 << (n - 1).bit_length() for n in (num_samples, dim))
    block_queries = max(1, size // (block_samples * block_channels))
    warps = block_queries * block_samples * block_channels // size

    kernels = load_kernels()
    count = kernels.COUNTS[counting_type(value, offsets, logits)]
    kernel = getattr(kernels, name)[math.ceil(num_queries / block_queries), num_heads, batch]
    with current(value.device):
        kernel(
            *(*results, *inputs, num_pixels, num_queries, num_samples, num_points, dim),
            *(block_queries, block_samples, block_channels, count),
            num_warps=min(max(1, warps), MOST_WARPS),
            enable_fp_fusion=True,  # which a newer triton does not do unasked
        )


def forward(value: Tensor, *others: Tensor) -> Tensor:
    """Shapes: (B,S,M,D), (L,2), (L,), (Q,2), (B,Q,M,L,P,2), (B,Q,M,L,P) -> (B,Q,M*D)"""
    output = value.new_empty(*others[-1].shape[:2], value.shape[2] * value.shape[3])
    if output.numel():
        size = FORWARD_BYTES // value.element_size()
        launch("forward_kernel", (output,), (value, *others), size)
    return output


def backward(grad: Tensor, value: Tensor, *others: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Shapes: (B,Q,M*D), and the inputs' -> those of value, offsets and logits"""
    offsets, logits = others[-2:]
    # Not of the values' type: what many queries give would be lost in its few digits, and below
    # compute capability 9.0 a bfloat16 is added to by trying until nothing else came between.
    grad_value = torch.zeros_like(value, dtype=counting_type(value, offsets, logits))
    results = grad_value, torch.empty_like(offsets), torch.empty_like(logits)
    if grad.numel():
        launch("backward_kernel", results, (grad, value, *others), BACKWARD_NUMBERS)
    return grad_value.to(value.dtype), *results[1:]


attend = register("ms_deform_attn_triton", None, forward, backward, levels=SIZES_AND_STARTS)


@functools.cache  # tried once a process
def try_to_run(device_type: str) -> str:
    """Import triton and run the forward kernel on a few zeros; what went wrong, or ""."""
    try:
        version = importlib.import_module(PACKAGE).__version__
        if int(version.split(".")[0]) < OLDEST:
            return f"{PACKAGE} {version} is too old; it takes {OLDEST}.0 or newer"
        kernels = load_kernels()
    except ImportError as error:  # a library of another version, say
        return f"{PACKAGE} cannot be imported: {error}"
    levels = describe_levels([(2, 2)], torch.device(device_type))
    zeros = levels.sizes.new_zeros
    inputs = zeros(1, 2), zeros(1, 1, 1, 1, 4, 2), zeros(1, 1, 1, 1, 4)
    try:
        forward(zeros(1, 4, 1, 32), levels.sizes, levels.starts, *inputs)
    except (kernels.triton.TritonError, OSError, RuntimeError, subprocess.SubprocessError) as error:
        return f"its kernels do not run here: {textwrap.shorten(str(error), 200)}"
    return ""


@MS_DEFORM_ATTN_REGISTRY.register()
class Triton(MSDeformAttnOp):
    """Two kernels of our own, compiled where they run."""

    @staticmethod
    def rank(device_type: str) -> int:
        return 4

    @staticmethod
    def why_not(device_type: str) -> str:
        if not runs_triton(device_type):
            return "its kernels are for another device"
        if importlib.util.find_spec(PACKAGE) is None:
            return f"no package {PACKAGE}"
        return try_to_run(device_type) if device_count(device_type) else "there is no such device"

    @staticmethod
    def run(
        value: Tensor, levels: Levels, reference_points: Tensor, offsets: Tensor, logits: Tensor
    ) -> Tensor:
        return attend(value, levels.sizes, levels.starts, reference_points, offsets, logits)
