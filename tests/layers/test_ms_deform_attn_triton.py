"""The Triton kernels: in Triton's interpreter, on a CPU, and whether they compile for GPUs.

Triton has to know that it interprets before it is imported, and other tests compile with it. So a
process of its own does what `interpreted` is given.
"""

import importlib.util
import math
import multiprocessing
import pickle
import re
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from deform_attn_cases import (
    HALVES,
    SHAPES,
    assert_only_results_are_rounded,
    deform_attn_with_loops,
    gradients,
    levels_of,
    random_inputs,
)

from mask2former.layers.ms_deform_attn import (
    MS_DEFORM_ATTN_REGISTRY,
    build_ms_deform_attn,
    triton_op,
)
from mask2former.layers.ms_deform_attn.reference import Reference
from mask2former.layers.ms_deform_attn.triton_op import Triton, load_kernels

KERNELS = "mask2former.layers.ms_deform_attn.triton_kernels"


def call(pickled):
    function, args = pickle.loads(pickled)
    return pickle.dumps(function(*args))


def has_loaded_kernels():
    return KERNELS in sys.modules


@pytest.fixture(scope="module")
def process():
    """`.call(function, *args)` is what the function returns where triton interprets."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:

        def call_there(function, *args):
            return pickle.loads(pool.submit(call, pickle.dumps((function, args))).result())

        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TRITON_INTERPRET", "1")
            loaded_at_first = call_there(has_loaded_kernels)
        yield SimpleNamespace(call=call_there, loaded_at_first=loaded_at_first)


@pytest.fixture
def interpreted(process):
    return process.call


CASES = {
    "few of all": (SHAPES, {}),
    "one level, one point": ([(7, 3)], {"points": 1, "queries": 5}),
    "one pixel": ([(1, 1)], {"points": 4, "heads": 1}),
    "five levels": ([(1, 1), (1, 6), (5, 1), (6, 5), (2, 2)], {"channels": 5, "points": 4}),
    "queries in several blocks": ([(4, 3), (2, 2)], {"channels": 32, "points": 3, "queries": 7}),
    "several warps": ([(3, 2)] * 3, {"channels": 70, "points": 4, "batch": 1, "queries": 3}),
    "far outside": (SHAPES, {"spread": 6.0, "batch": 1}),
}


def assert_same(results, expected, **tolerances):
    for result, same in zip(results, expected):
        torch.testing.assert_close(result, same, **tolerances)


@pytest.mark.parametrize(("shapes", "sizes"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_it_agrees_with_loops_and_its_gradients_with_the_reference(
    interpreted, dtype, shapes, sizes
):
    inputs = random_inputs(shapes, **sizes)
    results = interpreted(gradients, Triton, [x.to(dtype) for x in inputs], shapes)
    assert {x.dtype for x in results} == {dtype}
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    loops = deform_attn_with_loops(shapes, *inputs)
    np.testing.assert_allclose(results[0].numpy(), loops, rtol=0, atol=tolerance)
    expected = gradients(Reference, inputs, shapes)
    assert_same([x.double() for x in results], expected, rtol=tolerance, atol=tolerance)


def test_at_the_border_and_at_pixels_centres(interpreted):
    """Sizes are powers of 2, for which all of these places are exact."""
    shapes = [(4, 8), (1, 1), (8, 2)]
    value, _, _, logits = random_inputs(shapes, batch=1, queries=121, points=1)
    along = [-1e4, -1.0, -1 / 8, -1 / 16, 0.0, 1 / 16, 1 / 4, 15 / 16, 1.0, 17 / 16, 1e4]
    wanted = torch.cartesian_prod(*[torch.tensor(along, dtype=torch.float64)] * 2)  # (121,2)
    places = torch.full((121, 2), 0.25, dtype=torch.float64)
    offsets = (wanted[:, None] - 0.25) * levels_of(shapes).sizes  # (121,3,2)
    offsets = offsets[None, :, None, :, None].expand(1, -1, 2, 3, 1, 2)
    inputs = value, places, offsets, logits
    results = interpreted(gradients, Triton, inputs, shapes)
    assert_same(results, gradients(Reference, inputs, shapes), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtypes", HALVES, ids=str)
def test_half_precision_rounds_the_results_only(interpreted, dtypes):
    compute = partial(interpreted, gradients, Triton)
    assert_only_results_are_rounded(compute, *dtypes, channels=32, points=4)


def test_what_many_queries_give_to_one_value_is_not_lost(interpreted):
    """To 256, in bfloat16, 1 cannot be added."""
    value = torch.zeros(1, 1, 1, 1, dtype=torch.bfloat16)
    places, offsets = torch.full((300, 2), 0.5), torch.zeros(1, 300, 1, 1, 1, 2)
    inputs = value, places, offsets, torch.zeros(1, 300, 1, 1, 1)
    _, grad_value, *_ = interpreted(gradients_of_ones, inputs)
    assert grad_value.item() == 300


def gradients_of_ones(inputs):
    value, places, offsets, logits = inputs
    learned = [x.requires_grad_() for x in (value, offsets, logits)]
    output = Triton.run(value, levels_of([(1, 1)]), places, offsets, logits)
    return output.detach(), *torch.autograd.grad(output, learned, torch.ones_like(output))


def test_layout_of_the_inputs_does_not_matter(interpreted):
    value, places, offsets, logits = random_inputs()
    logits = logits[:1, :1].expand(2, 4, -1, -1, -1)
    scattered = [
        value.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
        places.T.contiguous().T,
        offsets.permute(5, 4, 3, 2, 1, 0).contiguous().permute(5, 4, 3, 2, 1, 0),
        logits,
    ]
    assert not any(x.is_contiguous() for x in pickle.loads(pickle.dumps(scattered)))
    results = interpreted(gradients, Triton, scattered)
    assert_same(results, gradients(Reference, scattered), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sizes", [{"batch": 0}, {"queries": 0}])
def test_nothing_to_do(interpreted, sizes):
    value, places, offsets, logits = random_inputs(**sizes)
    result, *grads = interpreted(gradients, Triton, (value, places, offsets, logits))
    assert result.shape == (sizes.get("batch", 2), sizes.get("queries", 4), 6)
    assert [g.shape for g in grads] == [x.shape for x in (value, offsets, logits)]
    assert not any(g.any() for g in grads)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e30])
def test_a_broken_offset_breaks_its_own_query_only(interpreted, bad):
    """An index made of it would be one of any memory, which ends the process."""
    value, places, offsets, logits = random_inputs()
    expected = interpreted(gradients, Triton, (value, places, offsets, logits))
    offsets[1, 2] = bad
    result, *grads = interpreted(gradients, Triton, (value, places, offsets, logits))
    broken = result[1, 2].clone()
    assert (broken == 0).all() if bad == 1e30 else broken.isnan().all()  # 1e30 is but far outside
    result[1, 2] = expected[0][1, 2]
    assert torch.equal(result, expected[0])
    for of_sample, same in zip(grads[1:], expected[2:]):
        of_sample[1, 2] = same[1, 2]
        assert torch.equal(of_sample, same)
    assert torch.equal(grads[0][0], expected[1][0])


def check_operator():
    """The checks of torch; and compiled, with nothing left to Python."""
    value, places, offsets, logits = random_inputs()
    learned = [x.requires_grad_() for x in (value, offsets, logits)]
    levels = levels_of()
    inputs = value, levels.sizes, levels.starts, places, offsets, logits
    names = "test_schema", "test_autograd_registration", "test_faketensor"
    checks = torch.library.opcheck(triton_op.attend, inputs, test_utils=names)

    def attend(value, places, offsets, logits):
        return Triton.run(2 * value, levels, places, offsets, logits).sin()

    results = []
    for run in (attend, torch.compile(attend, backend="aot_eager", fullgraph=True)):
        output = run(value, places, offsets, logits)
        results.append([output.detach(), *torch.autograd.grad(output.sum(), learned)])
    return checks, results


def test_torch_knows_it_as_an_operator(interpreted):
    checks, (eager, compiled) = interpreted(check_operator)
    assert set(checks.values()) == {"SUCCESS"}
    assert_same(compiled, eager, rtol=1e-14, atol=1e-14)


def choose():
    """What a config that names it gets on a device for which triton compiles; here, the CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(triton_op, "runs_triton", {"cpu": True}.get)
        build_ms_deform_attn.cache_clear()
        return build_ms_deform_attn("Triton", "cpu").__name__


def test_it_is_taken_where_it_runs(interpreted):
    assert interpreted(choose) == "Triton"
    others = [op for _, op in MS_DEFORM_ATTN_REGISTRY if op is not Triton]
    assert all(Triton.rank("cuda") > op.rank("cuda") or op.why_not("cuda") for op in others)


def test_triton_is_not_imported_before_that(process):
    assert not process.loaded_at_first
    process.call(Triton.run, *small_inputs())
    assert process.call(has_loaded_kernels)


def small_inputs():
    value, *others = random_inputs()
    return value, levels_of(), *others


@pytest.fixture
def device_for_it(monkeypatch):
    monkeypatch.setattr(triton_op, "runs_triton", {"cpu": True}.get)
    triton_op.try_to_run.cache_clear()
    yield
    triton_op.try_to_run.cache_clear()


def test_it_is_for_devices_that_triton_compiles_for(monkeypatch):
    assert Triton.why_not("cpu") == Triton.why_not("sdaa") == "its kernels are for another device"
    monkeypatch.setattr(triton_op, "device_count", {"cuda": 0}.get)
    assert Triton.why_not("cuda") == "there is no such device"
    monkeypatch.setattr(importlib.util, "find_spec", {"triton": None}.get)
    assert Triton.why_not("cuda") == "no package triton"


def test_an_old_or_broken_triton_is_told_of(device_for_it, monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", SimpleNamespace(__version__="2.3.1"))
    assert triton_op.try_to_run("cpu") == "triton 2.3.1 is too old; it takes 3.0 or newer"
    triton_op.try_to_run.cache_clear()
    monkeypatch.setitem(sys.modules, "triton", None)
    assert triton_op.try_to_run("cpu").startswith("triton cannot be imported: ")


def test_what_keeps_the_kernels_from_running_is_told_of(device_for_it, monkeypatch):
    def fail(*args):
        raise RuntimeError("Failed to find C compiler.\nPlease specify")

    monkeypatch.setattr(triton_op, "forward", fail)
    why = "its kernels do not run here: Failed to find C compiler. Please specify"
    assert Triton.why_not("cpu") == why


@pytest.mark.parametrize(("name", "dtype"), [("forward", "bf16"), ("backward", "fp32")])
@pytest.mark.parametrize("capability", [80, 90])
def test_they_compile_for_a_gpu(name, dtype, capability, monkeypatch, tmp_path):
    """The interpreter takes things that the compiler does not. No GPU is needed for that."""
    from triton import compile as triton_compile
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernels = load_kernels()
    kernel = getattr(kernels, f"{name}_kernel")
    constants = {"T": 12, "P": 4, "D": 32, "BLOCK_Q": 1, "BLOCK_T": 16, "BLOCK_D": 32}
    constants["COUNT"] = kernels.COUNTS[torch.float32]
    types = dict.fromkeys(kernel.arg_names, f"*{dtype}") | dict.fromkeys(constants, "constexpr")
    types |= {"sizes": "*fp32", "starts": "*i64", "reference_points": "*fp32"}
    types |= {"num_pixels": "i32", "num_queries": "i32"}
    aligned = [["tt.divisibility", 16]]
    attributes = {(i,): aligned for i, n in enumerate(kernel.arg_names) if types[n][0] == "*"}
    source = ASTSource(kernel, types, constants, attributes)
    target = GPUTarget("cuda", capability, 32)
    compiled = triton_compile(
        source, target=target, options={"num_warps": 1, "enable_fp_fusion": True}
    )
    assert "ld.global.v4" in compiled.asm["ptx"]  # 16 bytes a thread and time
    assert ".cas." not in compiled.asm["ptx"]
    assert bool(re.search(r"(atom|red)\..*add.*\.f32", compiled.asm["ptx"])) == (name == "backward")
