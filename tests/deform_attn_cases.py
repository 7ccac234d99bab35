"""Inputs of deformable attention, and what comes out of it by its definition."""

import itertools
import math

import numpy as np
import torch

from mask2former.layers.levels import describe_levels
from mask2former.layers.ms_deform_attn.reference import Reference

SHAPES = [(3, 5), (2, 2), (1, 4)]
CPU = torch.device("cpu")
# Types of the values, and of offsets and logits.
HALVES = list(itertools.product((torch.float16, torch.bfloat16), (torch.float32, "the same")))


def levels_of(shapes=SHAPES):
    return describe_levels(shapes, CPU)


def deform_attn_with_loops(spatial_shapes, *inputs):
    """The definition, one bilinear corner at a time; of arrays, or of tensors of any type."""
    value, places, offsets, logits = (np.asarray(x, np.float64) for x in inputs)
    batch, _, heads, channels = value.shape
    _, queries, _, _, points, _ = offsets.shape
    weights = np.exp(logits - logits.max((3, 4), keepdims=True, initial=-1e9))
    weights /= weights.sum((3, 4), keepdims=True)
    output = np.zeros((batch, queries, heads, channels))
    starts = np.cumsum([0] + [h * w for h, w in spatial_shapes])
    for b, q, m in np.ndindex(batch, queries, heads):
        for level, (height, width) in enumerate(spatial_shapes):
            for p in range(points):
                x = places[q, 0] * width + offsets[b, q, m, level, p, 0] - 0.5
                y = places[q, 1] * height + offsets[b, q, m, level, p, 1] - 0.5
                for row in (math.floor(y), math.floor(y) + 1):
                    for column in (math.floor(x), math.floor(x) + 1):
                        if 0 <= row < height and 0 <= column < width:
                            corner = (1 - abs(y - row)) * (1 - abs(x - column))
                            pixel = starts[level] + row * width + column
                            output[b, q, m] += (
                                weights[b, q, m, level, p] * corner * value[b, pixel, m]
                            )
    return output.reshape(batch, queries, heads * channels)


def random_inputs(
    shapes=SHAPES, batch=2, queries=4, heads=2, channels=3, points=2, spread=1.4, seed=0
):
    """What an op takes beside the levels, float64; with `spread` > 1 some look outside."""
    torch.manual_seed(seed)
    size = sum(h * w for h, w in shapes)
    value = torch.randn(batch, size, heads, channels, dtype=torch.float64)
    locations = torch.rand(batch, queries, heads, len(shapes), points, 2, dtype=torch.float64)
    locations = (locations - 0.5) * spread + 0.5
    logits = torch.randn(batch, queries, heads, len(shapes), points, dtype=torch.float64)
    places = torch.rand(queries, 2, dtype=torch.float64)
    offsets = (locations - places[:, None, None, None]) * levels_of(shapes).sizes[:, None]
    return value, places, offsets, logits


def gradients(op, inputs, shapes=SHAPES, seed=1):
    """What the op gives, and for a random gradient of it those of value, offsets and logits."""
    value, places, offsets, logits = inputs
    learned = value, offsets, logits = [
        x.detach().requires_grad_() for x in (value, offsets, logits)
    ]
    output = op.run(value, levels_of(shapes), places, offsets, logits)
    grad = torch.randn(output.shape, generator=torch.Generator().manual_seed(seed))
    return [output.detach(), *torch.autograd.grad(output, learned, grad.to(output.dtype))]


def assert_only_results_are_rounded(compute_gradients, dtype, others_dtype, **sizes):
    """Half precision is in inputs and results, and nowhere between them."""
    value, places, *others = random_inputs(**sizes)
    others_dtype = dtype if others_dtype == "the same" else others_dtype
    inputs = value.to(dtype), places.float(), *(x.to(others_dtype) for x in others)
    results = compute_gradients(inputs)
    assert [x.dtype for x in results] == [dtype, dtype, others_dtype, others_dtype]
    for result, exact in zip(results, gradients(Reference, [x.double() for x in inputs])):
        # What comes back has been rounded once, and so has the gradient that came in.
        scale = torch.finfo(dtype).eps * exact.abs().amax()
        assert (result - exact).abs().max() <= 2 * scale
