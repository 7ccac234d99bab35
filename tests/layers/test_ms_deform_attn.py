"""What holds for every op that runs here, and for the module and the choice between them."""

import logging

import numpy as np
import pytest
import torch
from deform_attn_cases import SHAPES, deform_attn_with_loops, gradients, levels_of, random_inputs

from mask2former.layers.ms_deform_attn import (
    MS_DEFORM_ATTN_REGISTRY,
    MSDeformAttn,
    MSDeformAttnOp,
    build_ms_deform_attn,
)
from mask2former.layers.ms_deform_attn.reference import Reference

OPS = [name for name, op in MS_DEFORM_ATTN_REGISTRY if not op.why_not("cpu")]


def run(name, inputs, shapes=SHAPES):
    return build_ms_deform_attn(name, "cpu").run(inputs[0], levels_of(shapes), *inputs[1:])


def test_levels():
    levels = levels_of()
    assert levels.shapes == tuple(SHAPES)
    assert levels.sizes.tolist() == [[5, 3], [2, 2], [4, 1]]  # (W, H)
    assert levels.starts.tolist() == [0, 15, 19]
    assert (levels.sizes.dtype, levels.starts.dtype) == (torch.float32, torch.int64)


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shapes", [SHAPES, [(7, 3)], [(1, 1)], [(1, 1), (1, 6), (5, 1), (13, 11)]])
def test_op_agrees_with_loops(name, dtype, shapes):
    inputs = random_inputs(shapes)
    expected = deform_attn_with_loops(shapes, *inputs)
    result = run(name, [x.to(dtype) for x in inputs], shapes)
    assert result.dtype == dtype
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    np.testing.assert_allclose(result.numpy(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("shapes", [SHAPES, [(1, 1), (2, 3)]])
def test_op_gradients(name, shapes):
    value, places, *others = random_inputs(shapes, batch=2, queries=2)
    assert torch.autograd.gradcheck(
        lambda value, *others: run(name, (value, places, *others), shapes),
        [x.requires_grad_() for x in (value, *others)],
    )


def places_of_note():
    """For maps of 2^n pixels, on which they are exact: centres, borders, corners, far outside."""
    places = torch.tensor(
        [-1e4, -1.0, -1 / 8, -1 / 16, 0.0, 1 / 16, 1 / 8, 1 / 4, 15 / 16, 1.0, 17 / 16, 9 / 8, 1e4],
        dtype=torch.float64,
    )
    return torch.cartesian_prod(places, places)  # (169,2)


@pytest.mark.parametrize("name", OPS)
def test_places_of_note(name):
    shapes = [(4, 8), (1, 1), (8, 2)]
    value, _, _, logits = random_inputs(shapes, batch=1, queries=169, points=1)
    places = torch.full((169, 2), 0.25, dtype=torch.float64)
    offsets = (places_of_note()[:, None] - 0.25) * levels_of(shapes).sizes  # (169,3,2)
    offsets = offsets[None, :, None, :, None].expand(1, -1, 2, 3, 1, 2)
    inputs = value, places, offsets, logits
    expected = deform_attn_with_loops(shapes, *inputs)
    np.testing.assert_allclose(run(name, inputs, shapes).numpy(), expected, rtol=0, atol=1e-12)
    # At a pixel's centre the slopes to its left and right differ; all take the same.
    for result, same in zip(
        gradients(build_ms_deform_attn(name, "cpu"), inputs, shapes),
        gradients(Reference, inputs, shapes),
    ):
        torch.testing.assert_close(result, same, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", OPS)
def test_layout_of_the_inputs_does_not_matter(name):
    value, places, offsets, logits = random_inputs()
    logits = logits[:1, :1].expand(2, 4, -1, -1, -1)
    expected = run(name, (value, places, offsets, logits.contiguous()))
    scattered = [
        value.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
        places.T.contiguous().T,
        offsets.permute(5, 4, 3, 2, 1, 0).contiguous().permute(5, 4, 3, 2, 1, 0),
        logits,
    ]
    assert not any(x.is_contiguous() for x in scattered)
    torch.testing.assert_close(run(name, scattered), expected, rtol=0, atol=1e-14)
    op = build_ms_deform_attn(name, "cpu")
    for result, same in zip(
        gradients(op, scattered), gradients(op, [x.contiguous() for x in scattered])
    ):
        torch.testing.assert_close(result, same, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("sizes", [{"batch": 0}, {"queries": 0}])
def test_nothing_to_do(name, sizes):
    value, places, offsets, logits = random_inputs(**sizes)
    op = build_ms_deform_attn(name, "cpu")
    result, *grads = gradients(op, (value, places, offsets, logits))
    assert result.shape == (sizes.get("batch", 2), sizes.get("queries", 4), 6)
    assert [g.shape for g in grads] == [x.shape for x in (value, offsets, logits)]
    assert not any(g.any() for g in grads)


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
    logits = module.attention_weights(query).view(2, 4, 2, 3, 2)
    value = module.value_proj(feature).view(2, size, 2, 4)
    attended = deform_attn_with_loops(
        SHAPES, value.detach(), places, offsets.detach(), logits.detach()
    )
    expected = module.output_proj(torch.from_numpy(attended))
    torch.testing.assert_close(module(query, places, feature, levels_of()), expected)


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


@pytest.fixture
def fresh_choice():
    build_ms_deform_attn.cache_clear()
    yield
    build_ms_deform_attn.cache_clear()


def test_auto_takes_the_highest_rank_that_runs_and_says_so_once(caplog, monkeypatch, fresh_choice):
    class Fast(MSDeformAttnOp):
        @staticmethod
        def rank(device_type):
            return 9

        @staticmethod
        def why_not(device_type):
            return "" if device_type == "somewhere" else "made for somewhere"

    monkeypatch.setitem(MS_DEFORM_ATTN_REGISTRY._obj_map, "Fast", Fast)
    with caplog.at_level(logging.INFO, logger="mask2former"):
        assert build_ms_deform_attn("auto", "somewhere") is Fast
        assert build_ms_deform_attn("auto", "elsewhere") is not Fast
        build_ms_deform_attn("auto", "elsewhere")
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert "on somewhere: Fast" in messages[0]
    assert "on elsewhere: Gather" in messages[1] and "made for somewhere" in messages[1]
    with pytest.raises(ValueError, match=r"does not run on elsewhere \(made for somewhere\)"):
        build_ms_deform_attn("Fast", "elsewhere")


@pytest.mark.parametrize(
    ("device_type", "chosen"),
    [("cpu", "Native"), ("cuda", "Reference"), ("mps", "Reference"), ("sdaa", "Gather")],
)
def test_each_device_gets_what_is_fastest_there(device_type, chosen, caplog, fresh_choice):
    with caplog.at_level(logging.INFO, logger="mask2former"):
        op = build_ms_deform_attn("auto", device_type)
    assert op is MS_DEFORM_ATTN_REGISTRY.get(chosen)
    (message,) = [record.getMessage() for record in caplog.records]
    assert f"on {device_type}: {chosen} (the fastest that runs there; not " in message
    assert "not Tecoops: " in message
    for name in ("Gather", "Reference"):  # a config may ask for them anywhere
        assert build_ms_deform_attn(name, device_type) is MS_DEFORM_ATTN_REGISTRY.get(name)


def test_unknown_op_names_the_known_ones():
    with pytest.raises(ValueError, match=r"'Nonsense'; set it to auto, .*, Tecoops, Triton"):
        build_ms_deform_attn("Nonsense", "cpu")
    with pytest.raises(ValueError, match="'Nonsense'"):  # said before there is any input
        MSDeformAttn(dim=8, num_levels=1, num_heads=4, num_points=1, op_name="Nonsense")


def test_heads_must_divide_channels():
    with pytest.raises(ValueError, match="do not divide"):
        MSDeformAttn(dim=10, num_levels=1, num_heads=4, num_points=1)
