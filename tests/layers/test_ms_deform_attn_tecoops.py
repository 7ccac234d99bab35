"""The maker's kernels, by a made-up package that computes with the reference on a CPU."""

import sys

import pytest
import torch
from deform_attn_cases import gradients, levels_of, random_inputs

from mask2former.layers.ms_deform_attn import build_ms_deform_attn, tecoops
from mask2former.layers.ms_deform_attn.reference import Reference
from mask2former.layers.ms_deform_attn.tecoops import Tecoops

MADE_UP = """
import torch
from mask2former.layers.levels import describe_levels
from mask2former.layers.ms_deform_attn.reference import ms_deform_attn_reference

calls = []

def attend(value, spatial_shapes, *others):
    shapes = [tuple(shape) for shape in spatial_shapes.tolist()]
    return ms_deform_attn_reference(value, describe_levels(shapes, value.device), *others)

def check(value, spatial_shapes, *others):
    assert spatial_shapes.dtype == torch.int64 and spatial_shapes.is_contiguous()
    assert all(x.dtype == torch.float32 and x.is_contiguous() for x in (value, *others))

def ms_deform_attn_forward(value, spatial_shapes, sampling_locations, attention_weights):
    calls.append("forward")
    inputs = value, spatial_shapes, sampling_locations, attention_weights
    check(*inputs)
    return attend(*inputs)
"""
BACKWARD = """
def ms_deform_attn_backward(value, spatial_shapes, sampling_locations, attention_weights, grad):
    calls.append("backward")
    check(value, spatial_shapes, sampling_locations, attention_weights, grad)
    floats = [x.detach().requires_grad_() for x in (value, sampling_locations, attention_weights)]
    with torch.enable_grad():
        output = attend(floats[0], spatial_shapes, *floats[1:])
    return torch.autograd.grad(output, floats, grad)
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Write the package, and let the CPU be the device that it is for."""

    def write(source):
        (tmp_path / "tecoops.py").write_text(source)

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(tecoops, "operator_package", {"cpu": "tecoops"}.get)
    monkeypatch.delitem(sys.modules, "tecoops", raising=False)
    build_ms_deform_attn.cache_clear()
    yield write
    sys.modules.pop("tecoops", None)
    build_ms_deform_attn.cache_clear()


def test_the_kernels_come_first_where_they_are(install):
    install(MADE_UP + BACKWARD)
    assert build_ms_deform_attn("auto", "cpu") is Tecoops


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_kernels_get_contiguous_float32(install, dtype):
    install(MADE_UP + BACKWARD)
    value, *others, logits = random_inputs()
    value = value.to(dtype).transpose(1, 2).contiguous().transpose(1, 2)
    others = [x.float() for x in others]
    inputs = value, *others, logits.float()[:1, :1].expand(2, 4, -1, -1, -1)
    expected = gradients(Reference, [x.float() for x in inputs])
    for result, same, x in zip(gradients(Tecoops, inputs), expected, (value, value, *inputs[2:])):
        assert result.dtype == x.dtype
        tolerance = 1e-2 if dtype == torch.float16 else 1e-5
        torch.testing.assert_close(result.float(), same, rtol=tolerance, atol=tolerance)
    import tecoops as made_up

    assert made_up.calls == ["forward", "backward"]


def test_a_gradient_that_is_expanded_is_made_contiguous(install):
    install(MADE_UP + BACKWARD)
    value, places, offsets, logits = (x.float() for x in random_inputs())
    logits.requires_grad_()
    Tecoops.run(value, levels_of(), places, offsets, logits).sum().backward()
    expected = torch.autograd.grad(
        Reference.run(value, levels_of(), places, offsets, logits).sum(), logits
    )
    torch.testing.assert_close(logits.grad, *expected)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (None, "no package tecoops"),
        (MADE_UP, "tecoops has no ms_deform_attn_backward"),
        ("", "tecoops has no ms_deform_attn_forward and no ms_deform_attn_backward"),
        ("import no_such_library", "tecoops cannot be imported: No module named 'no_such_library'"),
    ],
)
def test_without_the_kernels_it_says_what_is_missing(install, source, reason):
    if source is not None:
        install(source)
    assert Tecoops.why_not("cpu") == reason
    assert build_ms_deform_attn("auto", "cpu") is not Tecoops
    with pytest.raises(ValueError, match=rf"does not run on cpu \({reason}\); set the key to auto"):
        build_ms_deform_attn("Tecoops", "cpu")


def test_it_is_for_one_device():
    assert Tecoops.why_not("sdaa") == "no package tecoops"
    assert Tecoops.why_not("cpu") == Tecoops.why_not("xpu") == "its kernels are for another device"
