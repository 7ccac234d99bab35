"""The kernels of the Triton op. To import this file is to import triton.

A program takes a tile of queries x samples x channels: a few queries of one head of one image, all
their samples, all channels. So locations and weights are found once for all channels, the softmax
and its gradient stay in registers, and neighbouring threads read neighbouring channels.

B batch, Q queries, M heads, D channels a head, L levels, P points, T = L * P samples, S = sum of
all H * W. Of a tile q queries, t samples, d channels; t and d are T and D up to a power of two.
All tensors are contiguous. Rows are counted in int64: there may be more than 2^31 numbers.
"""

# ruff: noqa: ANN001, ANN201 -- triton takes annotations of its functions for its own

import torch
import triton
import triton.language as tl

COUNTS = {torch.float32: tl.float32, torch.float64: tl.float64}


@triton.jit
def find_rows(num_queries, BLOCK_Q: tl.constexpr):
    """The tile's queries; those beyond the last are the last once more, and not to be written.

    Shapes: -> (q,1) int32, (q,1) int64 among the B * Q * M rows of the output, (q,1) bool
    """
    query = tl.program_id(0) * BLOCK_Q + tl.arange(0, BLOCK_Q)[:, None]
    exists = query < num_queries
    query = tl.minimum(query, num_queries - 1)
    row = (tl.program_id(2).to(tl.int64) * num_queries + query) * tl.num_programs(1)
    return query, row + tl.program_id(1), exists


@triton.jit
def find_along(reference, offset, size):
    """Of each sample along one axis: the first of its two corners, how far beyond that it lies,
    and whether the first and the second are on the map.

    A sample at no finite place lies NaN beyond its first corner, and has none on the map.

    Shapes: (q,1), (q,t), (1,t) -> (q,t) int32 on the map, (q,t), (q,t) bool, (q,t) bool
    """
    place = reference * size + offset - 0.5  # pixel (0, 0) has its centre at (0.5, 0.5)
    first = tl.floor(place)
    beyond = place - first
    has_first = (first >= 0) & (first < size)
    has_second = (first >= -1) & (first < size - 1)
    first = tl.where(has_first | has_second, first, 0)  # any other may not fit into an int32
    return first.to(tl.int32), beyond, has_first, has_second


@triton.jit
def find_samples(
    sizes, starts, reference_points, offsets, logits, query, row,
    T: tl.constexpr, P: tl.constexpr, BLOCK_T: tl.constexpr, COUNT: tl.constexpr,
):  # fmt: skip
    """All about the samples. Those beyond T are on a level without pixels, and of weight 0.

    Shapes: -> of each sample (q,t) its upper left corner's pixel, int64; the level's width, (1,t)
    int32; its weight; how far beyond that corner it lies in x and in y; whether its left, right,
    upper and lower corners are on the map
    """
    sample = tl.arange(0, BLOCK_T)[None, :]
    known = sample < T
    level = sample // P
    width = tl.load(sizes + 2 * level, mask=known, other=0)
    height = tl.load(sizes + 2 * level + 1, mask=known, other=0)
    start = tl.load(starts + level, mask=known, other=0)
    reference_x = tl.load(reference_points + 2 * query).to(COUNT)
    reference_y = tl.load(reference_points + 2 * query + 1).to(COUNT)
    place = row * T + sample
    offset_x = tl.load(offsets + 2 * place, mask=known, other=0).to(COUNT)
    offset_y = tl.load(offsets + 2 * place + 1, mask=known, other=0).to(COUNT)
    logit = tl.load(logits + place, mask=known, other=-float("inf")).to(COUNT)

    weight = tl.exp(logit - tl.max(logit, 1)[:, None])
    weight = weight / tl.sum(weight, 1)[:, None]
    column, x, left, right = find_along(reference_x, offset_x, width.to(COUNT))
    line, y, upper, lower = find_along(reference_y, offset_y, height.to(COUNT))
    width = width.to(tl.int32)
    return start + line * width + column, width, weight, x, y, left, right, upper, lower


@triton.jit
def read(first_channels, pixel_row, inside, COUNT: tl.constexpr):
    """Shapes: pointers (1,1,d), (q,t), (q,t,d) bool -> (q,t,d), 0 where it is not inside"""
    return tl.load(first_channels + pixel_row[:, :, None], mask=inside, other=0).to(COUNT)


@triton.jit
def add(first_channels, pixel_row, inside, share, grad):
    """Shapes: pointers (1,1,d), (q,t), (q,t,d) bool, (q,t), (q,1,d)"""
    pointers = first_channels + pixel_row[:, :, None]
    tl.atomic_add(pointers, share[:, :, None] * grad, mask=inside, sem="relaxed")


@triton.jit(do_not_specialize=["num_pixels", "num_queries"])
def forward_kernel(
    output, value, sizes, starts, reference_points, offsets, logits, num_pixels, num_queries,
    T: tl.constexpr, P: tl.constexpr, D: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr, COUNT: tl.constexpr,
):  # fmt: skip
    """Shapes: as MSDeformAttnOp.run; sizes (L,2), starts (L,)"""
    query, row, exists = find_rows(num_queries, BLOCK_Q)
    pixel, width, weight, x, y, left, right, upper, lower = find_samples(
        sizes, starts, reference_points, offsets, logits, query, row, T, P, BLOCK_T, COUNT
    )
    a_pixel = tl.num_programs(1) * D  # numbers from one to the next
    first = pixel * a_pixel
    below = first + width * a_pixel
    channel = tl.arange(0, BLOCK_D)[None, None, :]
    left, right = left[:, :, None] & (channel < D), right[:, :, None] & (channel < D)
    upper, lower = upper[:, :, None], lower[:, :, None]

    value += tl.program_id(2).to(tl.int64) * num_pixels * a_pixel + tl.program_id(1) * D + channel
    of_upper, of_lower = weight * (1 - y), weight * y
    total = read(value, first, upper & left, COUNT) * (of_upper * (1 - x))[:, :, None]
    total += read(value, first + a_pixel, upper & right, COUNT) * (of_upper * x)[:, :, None]
    total += read(value, below, lower & left, COUNT) * (of_lower * (1 - x))[:, :, None]
    total += read(value, below + a_pixel, lower & right, COUNT) * (of_lower * x)[:, :, None]

    channel = tl.arange(0, BLOCK_D)[None, :]
    result = tl.sum(total, 1).to(output.dtype.element_ty)
    tl.store(output + row * D + channel, result, mask=exists & (channel < D))


@triton.jit(do_not_specialize=["num_pixels", "num_queries"])
def backward_kernel(
    grad_value, grad_offsets, grad_logits, grad,
    value, sizes, starts, reference_points, offsets, logits, num_pixels, num_queries,
    T: tl.constexpr, P: tl.constexpr, D: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr, COUNT: tl.constexpr,
):  # fmt: skip
    """Adds to grad_value, (B,S,M,D) of type COUNT; writes the others.

    Shapes: as MSDeformAttnOp.run; sizes (L,2), starts (L,)
    """
    query, row, exists = find_rows(num_queries, BLOCK_Q)
    pixel, width, weight, x, y, left, right, upper, lower = find_samples(
        sizes, starts, reference_points, offsets, logits, query, row, T, P, BLOCK_T, COUNT
    )
    a_pixel = tl.num_programs(1) * D  # numbers from one to the next
    first = pixel * a_pixel
    below = first + width * a_pixel
    channel = tl.arange(0, BLOCK_D)[None, None, :]
    left, right = left[:, :, None] & (channel < D), right[:, :, None] & (channel < D)
    upper, lower = (upper & exists)[:, :, None], (lower & exists)[:, :, None]

    # How much each corner's value would do for the output, along its gradient.
    of_row = tl.load(grad + row[:, :, None] * D + channel, mask=channel < D, other=0).to(COUNT)
    image_head = tl.program_id(2).to(tl.int64) * num_pixels * a_pixel + tl.program_id(1) * D
    value += image_head + channel
    upper_left = tl.sum(of_row * read(value, first, upper & left, COUNT), 2)
    upper_right = tl.sum(of_row * read(value, first + a_pixel, upper & right, COUNT), 2)
    lower_left = tl.sum(of_row * read(value, below, lower & left, COUNT), 2)
    lower_right = tl.sum(of_row * read(value, below + a_pixel, lower & right, COUNT), 2)

    grad_value += image_head + channel
    of_upper, of_lower = weight * (1 - y), weight * y
    add(grad_value, first, upper & left, of_upper * (1 - x), of_row)
    add(grad_value, first + a_pixel, upper & right, of_upper * x, of_row)
    add(grad_value, below, lower & left, of_lower * (1 - x), of_row)
    add(grad_value, below + a_pixel, lower & right, of_lower * x, of_row)

    along_upper, along_lower = upper_right - upper_left, lower_right - lower_left
    sampled_upper, sampled_lower = upper_left + x * along_upper, lower_left + x * along_lower
    of_x = of_upper * along_upper + of_lower * along_lower
    of_y = weight * (sampled_lower - sampled_upper)
    of_weight = (1 - y) * sampled_upper + y * sampled_lower
    of_logit = weight * (of_weight - tl.sum(weight * of_weight, 1)[:, None])

    sample = tl.arange(0, BLOCK_T)[None, :]
    place = row * T + sample
    mask = exists & (sample < T)
    tl.store(grad_logits + place, of_logit.to(grad_logits.dtype.element_ty), mask=mask)
    tl.store(grad_offsets + 2 * place, of_x.to(grad_offsets.dtype.element_ty), mask=mask)
    tl.store(grad_offsets + 2 * place + 1, of_y.to(grad_offsets.dtype.element_ty), mask=mask)
