"""Deformable attention in elementary operations, for accelerators without a kernel for it.

There, the number of operations and of changes of layout decides how fast it is. So all levels are
taken at once; values are read where they lie, as rows of D channels; and the weights of the
attention, of bilinear sampling and of being on the map at all are one weight a row.

B batch, Q queries, q those of a chunk, M heads, D channels a head, L levels, P points, T = L * P
samples, S = sum of all H * W. A sample has 2 x 2 corners: two along y, two along x.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from mask2former.layers.levels import Levels
from mask2former.layers.ms_deform_attn.build import MS_DEFORM_ATTN_REGISTRY, MSDeformAttnOp
from mask2former.layers.ms_deform_attn.sampling import locate_and_weigh

# The rows of a chunk of queries are so many bytes together: enough for the device to be busy with
# one operation, and little beside the memory (15 GB) of the smallest accelerator we know. However
# many queries there are, no other tensor is larger, but for the inputs and their gradients.
CHUNK_BYTES = 256 * 2**20


class Grid(NamedTuple):
    """Where the samples of an image, head and level lie among all B * S * M rows."""

    sizes: Tensor  # (2,T): W, H of the sample's level
    steps: Tensor  # (2,1): 0, 1; from a sample's first corner along an axis to each
    steps_back: Tensor  # (2,1): 1, 0; from each to the second
    first_rows: Tensor  # (B,1,M,1,1,T) int64: of the level's first pixel
    rows_a_pixel: int  # M


class Corners(NamedTuple):
    """The corners of a chunk's samples. Of the axes, x is the first."""

    rows: Tensor  # (B*q*M*2*2*T,) int64; of a corner beyond the border, one of any pixel
    along: Tensor  # (B,q,M,axis,2,T): bilinear weights along each axis, 0 beyond the border
    inside: Tensor  # (B,q,M,axis,2,T) bool: not beyond the border
    weights: Tensor  # (B,q,M,2*2*T): of both axes and the attention


def make_grid(value: Tensor, levels: Levels, num_points: int, dtype: torch.dtype) -> Grid:
    batch, num_pixels, num_heads, _ = value.shape
    rows_an_image = num_pixels * num_heads
    images = torch.arange(0, batch * rows_an_image, rows_an_image, device=value.device)
    heads = torch.arange(num_heads, device=value.device)

    def of_samples(x: Tensor) -> Tensor:  # (...,L) -> (...,T)
        return x[..., None].expand(*x.shape, num_points).flatten(-2)

    first_rows = images[:, None, None] + heads[:, None]  # (B,M,1)
    first_rows = first_rows.add(of_samples(levels.starts), alpha=num_heads)  # (B,M,T)
    steps = torch.arange(2, dtype=dtype, device=value.device)[:, None]
    return Grid(
        of_samples(levels.sizes.T).to(dtype),
        steps,
        1 - steps,
        first_rows[:, None, :, None, None],
        num_heads,
    )


def by_axis(x: Tensor) -> tuple[Tensor, Tensor]:
    """(B,q,M,axis,2,T) -> x (B,q,M,1,2,T), y (B,q,M,2,1,T), which broadcast to the corners."""
    return x[..., 0, None, :, :], x[..., 1, :, None, :]


def find_corners(locations: Tensor, attention_weights: Tensor, grid: Grid) -> Corners:
    """Shapes: (B,q,M,T,2), (B,q,M,T)"""
    locations = locations.transpose(-1, -2)  # (B,q,M,axis,T)
    # Written with the samples next to each other, and so is all that is computed from it.
    place = torch.mul(locations, grid.sizes, out=locations.new_empty(locations.shape))
    place.sub_(0.5)  # pixel (0, 0) has its centre at (0.5, 0.5)
    first = place.floor()
    fraction = place.sub_(first)
    along = torch.lerp(grid.steps_back, grid.steps, fraction[..., None, :])
    corner = first[..., None, :] + grid.steps
    inside = (corner >= 0) & (corner < grid.sizes[:, None])
    along.mul_(inside)
    corner = torch.where(inside, corner, 0)  # a row that there is, even where a location is NaN

    (x, y), (weight_x, weight_y) = by_axis(corner), by_axis(along)
    pixel = torch.addcmul(x, y, grid.sizes[0])  # exact: float32 counts to 16 million
    rows = torch.add(grid.first_rows, pixel.long(), alpha=grid.rows_a_pixel)
    weights = attention_weights[..., None, None, :] * weight_y * weight_x
    return Corners(rows.flatten(), along, inside, weights.flatten(3))


def read(value: Tensor, corners: Corners) -> Tensor:
    """What lies at the corners: (B,S,M,D) -> (B,q,M,2*2*T,D), in the type of the weights."""
    rows = value.reshape(-1, value.shape[-1]).index_select(0, corners.rows)
    return rows.to(corners.weights.dtype).view(*corners.weights.shape, value.shape[-1])


def attend(value: Tensor, locations: Tensor, attention_weights: Tensor, grid: Grid) -> Tensor:
    """Shapes: (B,S,M,D), (B,q,M,T,2), (B,q,M,T) -> (B,q,M,D)"""
    corners = find_corners(locations, attention_weights, grid)
    return read(value, corners).mul_(corners.weights[..., None]).sum(3)


def attend_backward(
    grad: Tensor,
    value: Tensor,
    locations: Tensor,
    attention_weights: Tensor,
    grid: Grid,
    grad_value: Tensor,
) -> tuple[Tensor, Tensor]:
    """Gradients of locations and attention weights; that of the values is added to `grad_value`.

    Shapes: (B,q,M,D), (B,S,M,D), (B,q,M,T,2), (B,q,M,T), _, (B,S,M,D) -> (B,q,M,T,2), (B,q,M,T)
    """
    corners = find_corners(locations, attention_weights, grid)
    rows = read(value, corners)
    grad = grad[:, :, :, None]  # (B,q,M,1,D)
    pull = rows.mul_(grad).sum(-1).unflatten(3, (2, 2, -1))  # of the corners' weights
    shares = torch.mul(corners.weights[..., None], grad, out=rows)
    grad_value.flatten(0, 2).index_add_(0, corners.rows, shares.flatten(0, 3))

    weight_x, weight_y = by_axis(corners.along)
    pulls = torch.stack(((pull * weight_y).sum(3), (pull * weight_x).sum(4)), 3)
    grad_attention = (pulls[:, :, :, 0] * corners.along[:, :, :, 0]).sum(3)
    # A place that moves on takes from the first corner along an axis what it gives to the second.
    taken, given = pulls.mul_(corners.inside).unbind(4)  # (B,q,M,axis,T)
    grad_places = (given - taken).mul_(attention_weights[..., None, :]).mul_(grid.sizes)
    return grad_places.transpose(-1, -2), grad_attention


def chunks(
    value: Tensor, attention_weights: Tensor, *others: Tensor
) -> Iterator[tuple[Tensor, ...]]:
    """Shapes: (B,Q,...) of each tensor -> (B,q,...), with as many queries as CHUNK_BYTES allows."""
    batch, _, num_heads, dim = value.shape
    row = dim * attention_weights.element_size()
    a_query = batch * num_heads * 4 * attention_weights.shape[3] * row
    size = max(1, CHUNK_BYTES // max(1, a_query))
    return zip(*(x.split(size, dim=1) for x in (attention_weights, *others)))


class _WeightedRows(torch.autograd.Function):
    """Keeps its inputs only: backward finds and reads the corners again, chunk by chunk.

    It counts in the type of locations and attention, float32 or float64, whatever that of the
    values; and no operation in here is one that autocast runs in another type.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        value: Tensor,
        grid: Grid,
        locations: Tensor,
        attention_weights: Tensor,
    ) -> Tensor:
        """Shapes: (B,S,M,D), _, (B,Q,M,T,2), (B,Q,M,T) -> (B,Q,M*D)"""
        ctx.save_for_backward(value, locations, attention_weights)
        ctx.grid = grid
        parts = chunks(value, attention_weights, locations)
        outputs = [attend(value, places, attention, grid) for attention, places in parts]
        return torch.cat(outputs, dim=1).flatten(2).to(value.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None, Tensor, Tensor]:
        """Shapes: (B,Q,M*D) -> those of the inputs"""
        value, locations, attention_weights = ctx.saved_tensors
        grad = grad.unflatten(-1, value.shape[2:]).to(attention_weights.dtype)
        grad_value = value.new_zeros(value.shape, dtype=grad.dtype)
        parts = chunks(value, attention_weights, locations, grad)
        grads = [
            attend_backward(grad_part, value, places, attention, ctx.grid, grad_value)
            for attention, places, grad_part in parts
        ]
        grad_locations, grad_attention = (torch.cat(g, dim=1) for g in zip(*grads))
        return grad_value.to(value.dtype), None, grad_locations, grad_attention


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
        locations, weights = locate_and_weigh(levels, reference_points, offsets, logits)
        grid = make_grid(value, levels, weights.shape[-1], weights.dtype)
        return _WeightedRows.apply(value, grid, locations.flatten(3, 4), weights.flatten(3))
