import logging
import math

import numpy as np
import pytest
import torch

from mask2former.layers.ms_deform_attn import (
    MS_DEFORM_ATTN_REGISTRY,
    MSDeformAttn,
    MSDeformAttnOp,
    build_ms_deform_attn,
)
from mask2former.layers.ms_deform_attn.reference import ms_deform_attn_reference

SHAPES = [(3, 5), (2, 2), (1, 4)]
OPS = [name for name, op in MS_DEFORM_ATTN_REGISTRY if not op.why_not("cpu")]


def deform_attn_with_loops(value, spatial_shapes, locations, weights):
    """The definition, one bilinear corner at a time."""
    batch, _, heads, channels = value.shape
    _, queries, _, _, points, _ = locations.shape
    output = np.zeros((batch, queries, heads, channels))
    starts = np.cumsum([0] + [h * w for h, w in spatial_shapes])
    for b, q, m in np.ndindex(batch, queries, heads):
        for level, (height, width) in enumerate(spatial_shapes):
            for p in range(points):
                x = locations[b, q, m, level, p, 0] * width - 0.5
                y = locations[b, q, m, level, p, 1] * height - 0.5
                for row in (math.floor(y), math.floor(y) + 1):
                    for column in (math.floor(x), math.floor(x) + 1):
                        if 0 <= row < height and 0 <= column < width:
                            corner = (1 - abs(y - row)) * (1 - abs(x - column))
                            pixel = starts[level] + row * width + column
                            output[b, q, m] += (
                                weights[b, q, m, level, p] * corner * value[b, pixel, m]
                            )
    return output.reshape(batch, queries, heads * channels)


def random_inputs(batch=2, queries=4, heads=2, channels=3, points=2, spread=1.4):
    torch.manual_seed(0)
    size = sum(h * w for h, w in SHAPES)
    value = torch.randn(batch, size, heads, channels, dtype=torch.float64)
    locations = torch.rand(batch, queries, heads, len(SHAPES), points, 2, dtype=torch.float64)
    locations = (locations - 0.5) * spread + 0.5  # with spread > 1, some beyond the border
    weights = torch.rand(batch, queries, heads, len(SHAPES), points, dtype=torch.float64)
    return value, locations, weights


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_op_agrees_with_loops(name, dtype):
    value, locations, weights = random_inputs()
    expected = deform_attn_with_loops(value.numpy(), SHAPES, locations.numpy(), weights.numpy())
    op = build_ms_deform_attn(name, "cpu")
    result = op.run(value.to(dtype), SHAPES, locations.to(dtype), weights.to(dtype))
    assert result.dtype == dtype
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    np.testing.assert_allclose(result.numpy(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", OPS)
def test_op_gradients(name):
    value, locations, weights = random_inputs(batch=1, queries=2)
    op = build_ms_deform_attn(name, "cpu")
    torch.autograd.gradcheck(
        lambda v, x, w: op.run(v, SHAPES, x, w),
        [t.requires_grad_() for t in (value, locations, weights)],
    )


def test_module_samples_where_it_says():
    """Its own part, against the loops: offsets in pixels, softmax over levels and points."""
    torch.manual_seed(0)
    module = MSDeformAttn(dim=8, num_levels=3, num_heads=2, num_points=2).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
    size = sum(h * w for h, w in SHAPES)
    query = torch.randn(2, 4, 8, dtype=torch.float64)
    feature = torch.randn(2, size, 8, dtype=torch.float64)
    places = torch.rand(4, 2, dtype=torch.float64)

    offsets = module.sampling_offsets(query).view(2, 4, 2, 3, 2, 2)
    locations = torch.empty_like(offsets)
    for q in range(4):
        for level, (height, width) in enumerate(SHAPES):
            locations[:, q, :, level, :, 0] = places[q, 0] + offsets[:, q, :, level, :, 0] / width
            locations[:, q, :, level, :, 1] = places[q, 1] + offsets[:, q, :, level, :, 1] / height
    weights = module.attention_weights(query).view(2, 4, 2, 6).softmax(-1).view(2, 4, 2, 3, 2)
    value = module.value_proj(feature).view(2, size, 2, 4)
    attended = deform_attn_with_loops(
        *(value.detach().numpy(), SHAPES, locations.detach().numpy(), weights.detach().numpy())
    )
    expected = module.output_proj(torch.from_numpy(attended))
    torch.testing.assert_close(module(query, places, feature, SHAPES), expected)


def test_initial_points_run_along_eight_directions():
    """Head m looks into direction m / 8 of a turn; its points lie 1, 2, 3, 4 steps out."""
    module = MSDeformAttn(dim=16, num_levels=3, num_heads=8, num_points=4)
    offsets = module.sampling_offsets.bias.detach().view(8, 3, 4, 2)
    directions = [(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)]
    for head, direction in enumerate(directions):
        for point in range(4):
            expected = torch.tensor(direction, dtype=torch.float32) * (point + 1)
            assert torch.allclose(offsets[head, :, point], expected, atol=1e-5)
    assert (module.sampling_offsets.weight == 0).all()
    assert (module.attention_weights.weight == 0).all()
    assert (module.attention_weights.bias == 0).all()


def test_auto_takes_the_highest_rank_that_runs_and_says_so_once(caplog, monkeypatch):
    class Fast(MSDeformAttnOp):
        rank = 1
        run = staticmethod(ms_deform_attn_reference)

        @staticmethod
        def why_not(device_type):
            return "" if device_type == "somewhere" else "made for somewhere"

    monkeypatch.setitem(MS_DEFORM_ATTN_REGISTRY._obj_map, "Fast", Fast)
    build_ms_deform_attn.cache_clear()
    with caplog.at_level(logging.INFO, logger="mask2former"):
        assert build_ms_deform_attn("auto", "somewhere") is Fast
        assert build_ms_deform_attn("auto", "elsewhere") is not Fast
        build_ms_deform_attn("auto", "elsewhere")
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert "on somewhere: Fast" in messages[0]
    assert "on elsewhere: Reference" in messages[1] and "made for somewhere" in messages[1]
    with pytest.raises(ValueError, match="does not run on elsewhere: made for somewhere"):
        build_ms_deform_attn("Fast", "elsewhere")
    build_ms_deform_attn.cache_clear()


def test_unknown_op_names_the_known_ones():
    with pytest.raises(ValueError, match="'Nonsense'; set it to auto, Reference"):
        build_ms_deform_attn("Nonsense", "cpu")
    with pytest.raises(ValueError, match="'Nonsense'"):  # said before there is any input
        MSDeformAttn(dim=8, num_levels=1, num_heads=4, num_points=1, op_name="Nonsense")


def test_heads_must_divide_channels():
    with pytest.raises(ValueError, match="do not divide"):
        MSDeformAttn(dim=10, num_levels=1, num_heads=4, num_points=1)
