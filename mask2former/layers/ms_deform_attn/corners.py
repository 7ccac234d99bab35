"""Deformable attention as weighted sums of rows, for the ops in plain PyTorch.

All levels are taken at once; values are read where they lie, as rows of D channels; and the
weights of the attention, of bilinear sampling and of being on the map at all are one weight a row.

B batch, Q queries, q those of a chunk, M heads, D channels a head, L levels, P points, T = L * P
samples, S = sum of all H * W. A sample has 2 x 2 corners: two along y, two along x. What is known
of the first corner of all samples lies together, then that of the second, and so on.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor


class Grid(NamedTuple):
    """Where a query looks without an offset, and where pixels lie among all B * S * M rows."""

    places: Tensor  # (1,Q,1,T,2): x, y in the pixels of the sample's level
    edges: tuple[Tensor, Tensor]  # that broadcast to (2,1,1,1,1,T): x, y of first and last pixel
    strides: Tensor  # (2,1,1,1,1,T): pixels from one to the next along x, along y
    first_rows: Tensor  # (B,1,M,T) of integers: of the level's first pixel
    rows_a_pixel: int  # M
    steps: Tensor  # (2,1,1,1,1): 0, 1; from a sample's first corner along an axis to each
    steps_back: Tensor  # (2,1,1,1,1): 1, 0; from each to the second


class Corners(NamedTuple):
    """The corners of a chunk's samples. Of the axes, x is the first."""

    rows: Tensor  # (2,2,B,q,M,T) of integers; of a corner beyond the border, one of any pixel
    along: Tensor  # (axis,2,B,q,M,T): bilinear weights along each axis, 0 beyond the border
    inside: Tensor  # (axis,2,B,q,M,T) bool: not beyond the border
    attention: Tensor  # (B,q,M,T)
    weights: Tensor  # (2,2,B,q,M,T): of both axes and the attention


# (rows of the values, corners) -> what is read, summed: (B*S*M,D) -> (B,q,M,D)
SumRows = Callable[[Tensor, Corners], Tensor]
# (gradient of these sums, rows of the values, corners, their gradient, which is added to) -> that
# of the corners' weights: (B,q,M,D), (B*S*M,D), _, (B*S*M,D) -> (2,2,B,q,M,T)
PullRows = Callable[[Tensor, Tensor, Corners, Tensor], Tensor]


def make_grid(
    value: Tensor,
    sizes: Tensor,
    starts: Tensor,
    reference_points: Tensor,
    offsets: Tensor,
    row_type: torch.dtype = torch.int64,
) -> Grid:
    """All that is counted from it is float32, or float64 where the values or offsets are.

    Args:
        sizes, starts: as in Levels.
        row_type: of the rows' numbers.
    Shapes: (B,S,M,D), (L,2), (L,), (Q,2), (B,Q,M,L,P,2)
    """
    batch, num_pixels, num_heads, _ = value.shape
    dtype = torch.promote_types(torch.promote_types(value.dtype, offsets.dtype), torch.float32)

    def count(*limits: int) -> Tensor:
        return torch.arange(*limits, dtype=row_type, device=value.device)

    def of_samples(x: Tensor) -> Tensor:  # (...,L) -> (...,T)
        return x[..., None].expand(*x.shape, offsets.shape[4]).flatten(-2)

    rows_an_image = num_pixels * num_heads
    first_rows = count(0, batch * rows_an_image, rows_an_image)[:, None] + count(num_heads)  # (B,M)
    starts = of_samples(starts.to(row_type))
    sizes = of_samples(sizes.T.to(dtype))  # (2,T)
    # Pixel (0, 0) has its centre at (0.5, 0.5).
    places = reference_points.T[..., None] * sizes[:, None] - 0.5  # (2,Q,T)
    sizes = sizes[:, None, None, None, None]
    steps = torch.arange(2, dtype=dtype, device=value.device)[:, None, None, None, None]
    steps_back = 1 - steps
    return Grid(
        places[:, None, :, None].movedim(0, -1),
        (steps[:1, None], sizes - 1),  # the first is 0
        torch.addcmul(steps_back[..., None], steps[..., None], sizes[0]),  # 1 and W
        torch.add(first_rows[..., None], starts, alpha=num_heads)[:, None],
        num_heads,
        steps,
        steps_back,
    )


def find_corners(grid: Grid, places: Tensor, offsets: Tensor, logits: Tensor) -> Corners:
    """Shapes: _, (1,q,1,T,2), (B,q,M,T,2), (B,q,M,T)"""
    attention = logits.softmax(-1, dtype=grid.steps.dtype)
    offsets, places = offsets.movedim(-1, 0), places.movedim(-1, 0)  # (axis,B,q,M,T)
    # Written with the samples next to each other, and so is all that is computed from it.
    place = torch.add(offsets, places, out=places.new_empty(offsets.shape))
    first = place.floor()
    fraction = place.sub_(first)
    along = torch.lerp(grid.steps_back, grid.steps, fraction[:, None])
    corner = first[:, None] + grid.steps
    on_map = corner.clamp(*grid.edges)
    inside = on_map == corner
    along.mul_(inside)
    # Of a row that there is, even where a place is NaN. Exact: float32 counts to 16 million.
    pixel = on_map.nan_to_num_(0).mul_(grid.strides).to(grid.first_rows.dtype)
    rows_y = torch.add(grid.first_rows, pixel[1], alpha=grid.rows_a_pixel)
    return Corners(
        torch.add(rows_y[:, None], pixel[0], alpha=grid.rows_a_pixel),
        along,
        inside,
        attention,
        (attention * along[1])[:, None] * along[0],
    )


def chunks(num_corners: int, attention: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Shapes: (B,Q,M,T), (_,Q,...) of each other -> (_,q,...), of so many corners at the most"""
    batch, _, num_heads, num_samples = attention.shape
    size = max(1, num_corners // max(1, batch * num_heads * 4 * num_samples))
    return zip(*(x.split(size, dim=1) for x in (attention, *others)))


def attend(
    value: Tensor,
    grid: Grid,
    offsets: Tensor,
    logits: Tensor,
    sum_rows: SumRows,
    num_corners: int,
) -> Tensor:
    """
    Args:
        num_corners: how many to find at a time; of one query at the least.
    Shapes: (B,S,M,D), _, (B,Q,M,L,P,2), (B,Q,M,L,P) -> (B,Q,M*D)
    """
    rows = value.reshape(-1, value.shape[-1])
    output = value.new_empty(*offsets.shape[:3], value.shape[-1])
    tensors = (logits.flatten(3), offsets.flatten(3, 4), grid.places, output)
    for part_logits, part_offsets, places, part in chunks(num_corners, *tensors):
        part.copy_(sum_rows(rows, find_corners(grid, places, part_offsets, part_logits)))
    return output.flatten(2)


def attend_backward(
    grad: Tensor,
    value: Tensor,
    grid: Grid,
    offsets: Tensor,
    logits: Tensor,
    pull_rows: PullRows,
    num_corners: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of value, offsets and logits, each in its own type.

    Shapes: (B,Q,M*D), (B,S,M,D), _, (B,Q,M,L,P,2), (B,Q,M,L,P) -> of the three
    """
    rows = value.reshape(-1, value.shape[-1])
    grad_value = value.new_zeros(value.shape, dtype=grid.steps.dtype)
    grad_offsets, grad_logits = (x.new_empty(x.shape) for x in (offsets, logits))
    tensors = (
        *(logits.flatten(3), offsets.flatten(3, 4), grid.places),
        *(grad.unflatten(-1, value.shape[2:]), grad_offsets.flatten(3, 4), grad_logits.flatten(3)),
    )
    for part_logits, part_offsets, places, part, of_offsets, of_logits in chunks(
        num_corners, *tensors
    ):
        corners = find_corners(grid, places, part_offsets, part_logits)
        pull = pull_rows(part.to(grad_value.dtype), rows, corners, grad_value.flatten(0, 2))
        grads = pull_places(pull, corners)
        of_offsets.copy_(grads[0])
        of_logits.copy_(grads[1])
    return grad_value.to(value.dtype), grad_offsets, grad_logits


def pull_places(pull: Tensor, corners: Corners) -> tuple[Tensor, Tensor]:
    """The gradients of offsets and logits, of that of the corners' weights.

    Shapes: (2,2,B,q,M,T) -> (B,q,M,T,2), (B,q,M,T)
    """
    attention, (weight_x, weight_y) = corners.attention, corners.along
    pulls = torch.stack(((pull * weight_y[:, None]).sum(0), (pull * weight_x).sum(1)))
    grad = (pulls[0] * weight_x).sum(0).mul_(attention)
    grad_logits = torch.addcmul(grad, attention, grad.sum(-1, keepdim=True), value=-1)
    # A place that moves on takes from the first corner along an axis what it gives to the second.
    taken, given = pulls.mul_(corners.inside).unbind(1)  # (axis,B,q,M,T)
    grad_offsets = (given - taken).mul_(attention)
    return grad_offsets.movedim(0, -1), grad_logits
