"""Deformable attention in elementary operations, for accelerators without a kernel for it.

There, the number of operations and of changes of layout decides how fast it is.

B batch, Q queries, q those of a chunk, M heads, D channels a head, L levels, P points, T = L * P
samples, S = sum of all H * W.
"""

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from mask2former.layers.levels import Levels
from mask2former.layers.ms_deform_attn.build import MS_DEFORM_ATTN_REGISTRY, MSDeformAttnOp
from mask2former.layers.ms_deform_attn.corners import (
    Corners,
    Grid,
    attend,
    attend_backward,
    make_grid,
)

# The rows of a chunk of queries are so many bytes together: enough for the device to be busy with
# one operation, and little beside the memory (15 GB) of the smallest accelerator we know. However
# many queries there are, no other tensor is larger, but for the inputs and their gradients.
CHUNK_BYTES = 256 * 2**20


def corners_a_chunk(value: Tensor, grid: Grid) -> int:
    return CHUNK_BYTES // max(1, value.shape[-1] * grid.steps.element_size())


def read(rows: Tensor, corners: Corners) -> Tensor:
    """What lies at the corners: (B*S*M,D) -> (2,2,B,q,M,T,D), in the type of the weights."""
    found = rows.index_select(0, corners.rows.flatten()).to(corners.weights.dtype)
    return found.view(*corners.rows.shape, rows.shape[-1])


def sum_rows(rows: Tensor, corners: Corners) -> Tensor:
    """Shapes: (B*S*M,D) -> (B,q,M,D)"""
    return read(rows, corners).mul_(corners.weights[..., None]).sum(5).sum((0, 1))


def pull_rows(grad: Tensor, rows: Tensor, corners: Corners, grad_rows: Tensor) -> Tensor:
    """Shapes: (B,q,M,D), (B*S*M,D), _, (B*S*M,D) -> (2,2,B,q,M,T)"""
    found = read(rows, corners)
    grad = grad[:, :, :, None]  # (B,q,M,1,D)
    pull = found.mul_(grad).sum(-1)
    shares = torch.mul(corners.weights[..., None], grad, out=found)
    grad_rows.index_add_(0, corners.rows.flatten(), shares.flatten(0, 5))
    return pull


class _WeightedRows(torch.autograd.Function):
    """Keeps its inputs only: backward finds and reads the corners again, chunk by chunk.

    It counts in float32, or float64, whatever the type of the inputs; and no operation in here is
    one that autocast runs in another type.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx, value: Tensor, grid: Grid, offsets: Tensor, logits: Tensor
    ) -> Tensor:
        """Shapes: (B,S,M,D), _, (B,Q,M,L,P,2), (B,Q,M,L,P) -> (B,Q,M*D)"""
        ctx.save_for_backward(value, offsets, logits)
        ctx.grid = grid
        return attend(value, grid, offsets, logits, sum_rows, corners_a_chunk(value, grid))

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None, Tensor, Tensor]:
        """Shapes: (B,Q,M*D) -> those of the inputs"""
        value, *others = ctx.saved_tensors
        num_corners = corners_a_chunk(value, ctx.grid)
        of_value, *of_others = attend_backward(
            grad, value, ctx.grid, *others, pull_rows, num_corners
        )
        return of_value, None, *of_others


@MS_DEFORM_ATTN_REGISTRY.register()
class Gather(MSDeformAttnOp):
    """Plain PyTorch in few operations, and with a bound on the memory that they take."""

    @staticmethod
    def rank(device_type: str) -> int:
        return 1

    @staticmethod
    def why_not(device_type: str) -> str:
        return ""

    @staticmethod
    def run(
        value: Tensor, levels: Levels, reference_points: Tensor, offsets: Tensor, logits: Tensor
    ) -> Tensor:
        grid = make_grid(value, levels.sizes, levels.starts, reference_points, offsets)
        return _WeightedRows.apply(value, grid, offsets, logits)
