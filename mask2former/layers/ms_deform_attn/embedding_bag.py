"""Deformable attention on a CPU, where there is no compiler for kernels of our own.

What a head sees for a query is a bag of rows and their weights, and torch has a kernel that sums
bags: it reads rows where they lie and writes nothing but the sums.

B batch, Q queries, q those of a chunk, M heads, D channels a head, L levels, P points, T = L * P
samples, S = sum of all H * W.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from mask2former.layers.levels import Levels
from mask2former.layers.ms_deform_attn.build import MS_DEFORM_ATTN_REGISTRY, MSDeformAttnOp
from mask2former.layers.ms_deform_attn.corners import (
    Corners,
    Grid,
    attend,
    attend_backward,
    make_grid,
)
from mask2former.layers.ms_deform_attn.custom_op import SIZES_AND_STARTS, register

# Few enough for their numbers to stay in a core's cache, and enough to keep several cores busy.
CHUNK_CORNERS = 2**18

# What autograd itself calls for the weights of F.embedding_bag, which would sum the bags again.
_pull_weights = torch.ops.aten._embedding_bag_per_sample_weights_backward.default
_SUM = 0


def make_small_grid(value: Tensor, *others: Tensor) -> Grid:
    """As make_grid; half as wide, the rows' numbers are sorted twice as fast."""
    return make_grid(value, *others, row_type=torch.int32)


def by_bag(x: Tensor) -> Tensor:
    """(2,2,B,q,M,T) -> (B*q*M,2*2*T)"""
    return x.flatten(2, 4).permute(2, 0, 1, 3).flatten(1)


def sum_bags(rows: Tensor, corners: Corners) -> Tensor:
    """Shapes: (B*S*M,D) -> (B,q,M,D)"""
    numbers, weights = by_bag(corners.rows), by_bag(corners.weights)
    sums = F.embedding_bag(numbers, rows, mode="sum", per_sample_weights=weights)
    return sums.unflatten(0, corners.attention.shape[:3])


def pull_bags(grad: Tensor, rows: Tensor, corners: Corners, grad_rows: Tensor) -> Tensor:
    """Shapes: (B,q,M,D), (B*S*M,D), _, (B*S*M,D) -> (2,2,B,q,M,T)"""
    grad = grad.flatten(0, 2)
    numbers, weights = by_bag(corners.rows), by_bag(corners.weights).flatten()
    bags = torch.arange(len(numbers), dtype=numbers.dtype)[:, None].expand_as(numbers).flatten()
    numbers = numbers.flatten()
    pull = _pull_weights(grad, rows, numbers, numbers[:0], bags, _SUM)

    # The other way round, a row of the values is the bag of all that have read it.
    numbers, order = numbers.sort()
    read, times = numbers.unique_consecutive(return_counts=True)
    shares = F.embedding_bag(
        bags.index_select(0, order),
        grad,
        (times.cumsum(0) - times).to(bags.dtype),
        mode="sum",
        per_sample_weights=weights.index_select(0, order),
    )
    grad_rows.index_add_(0, read.long(), shares)
    batch, queries, heads, samples = corners.attention.shape
    return pull.view(batch, queries, heads, 2, 2, samples).permute(3, 4, 0, 1, 2, 5).contiguous()


def forward(
    value: Tensor,
    sizes: Tensor,
    starts: Tensor,
    reference_points: Tensor,
    offsets: Tensor,
    logits: Tensor,
) -> Tensor:
    """Shapes: (B,S,M,D), (L,2), (L,), (Q,2), (B,Q,M,L,P,2), (B,Q,M,L,P) -> (B,Q,M*D)"""
    grid = make_small_grid(value, sizes, starts, reference_points, offsets)
    floats = value.to(grid.steps.dtype)
    return attend(floats, grid, offsets, logits, sum_bags, CHUNK_CORNERS).to(value.dtype)


def backward(
    grad: Tensor,
    value: Tensor,
    sizes: Tensor,
    starts: Tensor,
    reference_points: Tensor,
    offsets: Tensor,
    logits: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Shapes: (B,Q,M*D) and those of the inputs -> those of value, offsets and logits"""
    grid = make_small_grid(value, sizes, starts, reference_points, offsets)
    floats = value.to(grid.steps.dtype)
    grads = attend_backward(grad, floats, grid, offsets, logits, pull_bags, CHUNK_CORNERS)
    return grads[0].to(value.dtype), *grads[1:]


_attend = register("ms_deform_attn_embedding_bag", "cpu", forward, backward, SIZES_AND_STARTS)


@MS_DEFORM_ATTN_REGISTRY.register()
class EmbeddingBag(MSDeformAttnOp):
    """Plain PyTorch on a CPU, with little memory."""

    @staticmethod
    def rank(device_type: str) -> int:
        return 3

    @staticmethod
    def why_not(device_type: str) -> str:
        return "" if device_type == "cpu" else "its operations are fast on a CPU only"

    @staticmethod
    def run(
        value: Tensor, levels: Levels, reference_points: Tensor, offsets: Tensor, logits: Tensor
    ) -> Tensor:
        return _attend(value, levels.sizes, levels.starts, reference_points, offsets, logits)
