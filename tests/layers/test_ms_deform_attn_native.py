"""The kernels in C: their numbers, and that neither threads nor types nor layouts change them."""

import math
import os
import platform
import shutil
import signal
import weakref
from functools import partial

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

from mask2former.layers.ms_deform_attn import native
from mask2former.layers.ms_deform_attn.native import Native, split_maps
from mask2former.layers.ms_deform_attn.reference import Reference

# On a user's machine there need not be a compiler; where changes are checked there has to be one.
pytestmark = pytest.mark.skipif(
    shutil.which("cc") is None and "CI" not in os.environ, reason="no C compiler"
)

NARROWER = ["-mno-avx512f", "-mno-avx"] if platform.machine() in ("x86_64", "AMD64") else []


@pytest.fixture
def num_threads():
    """A function that sets how many threads torch, and so the kernels, use."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_it_runs_here():
    assert Native.why_not("cpu") == ""
    assert Native.why_not("xpu") == "its kernels are for the CPU"


def check_against_definition(**sizes):
    inputs = random_inputs(**sizes)
    results = gradients(Native, inputs)
    loops = torch.from_numpy(deform_attn_with_loops(SHAPES, *inputs))
    torch.testing.assert_close(results[0], loops, rtol=0, atol=1e-12)
    for result, expected in zip(results, gradients(Reference, inputs)):
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-12)
    in_float32 = gradients(Native, [x.float() for x in inputs])
    for result, expected in zip(in_float32, results):
        torch.testing.assert_close(result.double(), expected, rtol=0, atol=2e-5)


# Of queries and channels, a part of what is taken at a time, all of it, and one more.
@pytest.mark.parametrize("queries", [1, 16, 17])
@pytest.mark.parametrize("channels", [1, 32, 33, 64])
def test_any_number_of_queries_and_channels(queries, channels):
    check_against_definition(batch=1, queries=queries, channels=channels)


@pytest.mark.parametrize("option", NARROWER)
def test_processors_with_narrower_vectors(option, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CC", f"{os.environ.get('CC') or 'cc'} {option}")
    monkeypatch.setattr(native, "kernels", native.kernels.__wrapped__)
    check_against_definition(batch=2, queries=17, channels=33)
    assert len(list(tmp_path.rglob("*.so"))) == 1


def test_softmax_of_any_logits():
    value, places, offsets, _ = (x.float() for x in random_inputs(queries=64, points=1))
    logits = torch.linspace(-200, 200, 2 * 64 * 2 * 3).view(2, 64, 2, 3, 1)
    logits = logits * torch.tensor([1.0, -0.3, 0.01])[:, None]
    logits[1, :3, 0, 1] = -math.inf
    for result, expected in zip(
        gradients(Native, (value, places, offsets, logits)),
        gradients(Reference, [x.double() for x in (value, places, offsets, logits)]),
    ):
        assert result.isfinite().all()
        torch.testing.assert_close(result.double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtypes", HALVES, ids=str)
def test_half_precision_rounds_the_results_only(dtypes):
    assert_only_results_are_rounded(partial(gradients, Native), *dtypes, queries=30, channels=40)


def test_bfloat16_is_rounded_as_torch_rounds():
    value = torch.cat((torch.randn(500), torch.tensor([math.inf, -math.inf, math.nan, 0.0, 3e38])))
    exact = value.bfloat16().float()
    halfway = torch.nextafter(exact, torch.tensor(math.inf)).view(torch.int32) | 0x7FFF
    for numbers in (value, exact, halfway.view(torch.float32)):
        x = numbers.view(1, 1, 1, -1).bfloat16()
        out = Native.run(x, levels_of([(1, 1)]), *sample_of_one_pixel(torch.bfloat16))
        torch.testing.assert_close(out.flatten(), x.flatten(), rtol=0, atol=0, equal_nan=True)


def sample_of_one_pixel(dtype):
    """Place, offset and logit that give the value itself."""
    offsets, logits = torch.zeros(1, 1, 1, 1, 1, 2), torch.zeros(1, 1, 1, 1, 1)
    return torch.full((1, 2), 0.5), offsets.to(dtype), logits.to(dtype)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("which", [2, 3])
def test_a_broken_input_breaks_its_own_query_only(bad, which):
    """Nothing beyond the values is read for it, and the loss tells of it."""
    inputs = random_inputs(queries=20, points=1)
    expected, *_ = gradients(Native, inputs)
    inputs[which][1, 2] = bad
    result, *grads = gradients(Native, inputs)
    assert result[1, 2].isnan().all()
    result[1, 2] = expected[1, 2]
    assert torch.equal(result, expected)
    assert grads[1][0].isfinite().all() and grads[2][0].isfinite().all()


@pytest.mark.parametrize("far", [1e9, -1e30, 3e38])
def test_far_outside_there_is_nothing(far):
    """Also where the number of a pixel would be no int, and whatever the values are."""
    value, places, offsets, logits = (x.float() for x in random_inputs())
    value[:, 0] = math.nan
    offsets[1, 2] = far
    result, _, of_offsets, of_logits = gradients(Native, (value, places, offsets, logits))
    assert (result[1, 2] == 0).all()
    assert (of_offsets[1, 2] == 0).all() and (of_logits[1, 2] == 0).all()


def test_threads_change_no_bit(num_threads, monkeypatch):
    inputs = [x.float() for x in random_inputs(batch=1, queries=50, heads=3, channels=8)]
    num_threads(1)
    expected = gradients(Native, inputs)
    for count in (2, 3, 7):  # with all of them the queries of a head go to several
        num_threads(count)
        assert all(map(torch.equal, gradients(Native, inputs), expected))
    monkeypatch.setattr(native, "torch_threads", lambda: None)
    assert all(map(torch.equal, gradients(Native, inputs), expected))


@pytest.mark.parametrize(
    ("num_maps", "threads", "num_parts"),
    [(8, 1, 1), (8, 2, 1), (8, 3, 3), (8, 5, 3), (8, 16, 2), (1, 4, 4), (3, 2, 2), (19, 10, 1)],
)
def test_hardly_a_thread_is_idle(num_maps, threads, num_parts):
    assert split_maps(num_maps, threads) == num_parts
    rounds = math.ceil(num_maps * num_parts / threads)
    assert num_maps * num_parts >= 0.9 * rounds * threads


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_process_runs_it(num_threads):
    value, *others = (x.float() for x in random_inputs(queries=50))
    inputs = value, [n for shape in SHAPES for n in shape], *others

    def both_passes():  # without autograd, which has threads of its own
        output = native.forward(*inputs)
        return output, *native.backward(output, *inputs)

    num_threads(2)
    torch.ones(2**20).exp()  # torch's threads are there, and will not be in the other process
    expected = both_passes()
    child = os.fork()
    if not child:
        signal.alarm(30)  # rather than wait for threads forever
        status = 1
        try:
            status = 0 if all(map(torch.equal, both_passes(), expected)) else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


def test_only_inputs_are_kept_for_backward():
    inputs = [x.float() for x in random_inputs()]
    learned = [x.requires_grad_() for x in (inputs[0], *inputs[2:])]
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        output = Native.run(inputs[0], levels_of(), *inputs[1:])
    assert {x.data_ptr() for x in kept} == {x.data_ptr() for x in inputs}
    output.sum().backward()
    assert all(x.grad.shape == x.shape for x in learned)


def test_mistaken_sizes_do_not_reach_the_kernels():
    inputs = value, places, offsets, logits = random_inputs()
    for mistaken in (
        (value[:, 1:], places, offsets, logits),
        (value[:1], places, offsets, logits),
        (value[:, :, :1], places, offsets, logits),
        (value, places[1:], offsets, logits),
        (value, places[:1], offsets, logits),
        (value, places, offsets[:, :, :, :, :1], logits),
        (value, places, offsets, logits[:, 1:]),
    ):
        with pytest.raises(AssertionError):
            Native.run(mistaken[0], levels_of(), *mistaken[1:])
    for shapes in ([(23, 1)], [(3, 5), (2, 2)], [(-3, 5), (30, 1), (1, 8)]):
        with pytest.raises(AssertionError):
            Native.run(value, levels_of(shapes), *inputs[1:])


def test_what_threads_write_to_lives_as_long_as_their_job(monkeypatch):
    """They go on after an interrupt, of which the caller knows nothing."""
    jobs, outputs = [], []
    monkeypatch.setattr(native, "run_in_threads", lambda kernel, job, number: jobs.append(job))
    value, *others = random_inputs()
    output = native.forward(value, [n for shape in SHAPES for n in shape], *others)
    outputs.append(weakref.ref(output))
    del output
    assert outputs[0]() is not None
    jobs.clear()
    assert outputs[0]() is None
