"""What the op is made for: few operations, none of which waits, and a bound on the memory."""

import itertools
import math

import pytest
import torch
from deform_attn_cases import SHAPES, deform_attn_with_loops, gradients, levels_of, random_inputs
from torch.utils._python_dispatch import TorchDispatchMode

from mask2former.layers.ms_deform_attn import gather
from mask2former.layers.ms_deform_attn.gather import Gather
from mask2former.layers.ms_deform_attn.reference import Reference

GRID_SAMPLE = torch.ops.aten.grid_sampler_2d.default
WITHOUT_GRID_SAMPLE = torch._decomp.get_decompositions([GRID_SAMPLE])[GRID_SAMPLE]


class Recorder(TorchDispatchMode):
    """The operations that a device without grid_sample would run: (name, their results)."""

    def __init__(self):
        super().__init__()
        self.ran = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is GRID_SAMPLE:
            with self:
                return WITHOUT_GRID_SAMPLE(*args)
        result = func(*args, **(kwargs or {}))
        is_view = any(r.alias_info and not r.alias_info.is_write for r in func._schema.returns)
        tensors = [x for x in torch.utils._pytree.tree_leaves(result) if torch.is_tensor(x)]
        name = func.overloadpacket.__name__
        if tensors and not is_view and name not in ("new_empty", "_unsafe_view"):
            self.ran.append((name, tensors))
        return result

    def names(self):
        return [name for name, _ in self.ran]


def record(op, shapes=SHAPES, **sizes):
    """What forward and what backward run, and the inputs."""
    inputs = value, places, *others = [x.float() for x in random_inputs(shapes, **sizes)]
    learned = [x.requires_grad_() for x in (value, *others)]
    levels = levels_of(shapes)
    with Recorder() as forward:
        output = op.run(value, levels, places, *others)
    grad = torch.ones_like(output)
    with Recorder() as backward:
        torch.autograd.grad(output, learned, grad)
    return forward, backward, inputs


def test_there_are_few_operations_for_any_number_of_levels():
    forward, backward, _ = record(Gather)
    assert len(forward.ran) <= 33 and len(backward.ran) <= 39
    for shapes in ([(4, 4)], [(8, 8), (4, 4), (2, 2), (4, 2), (1, 1)]):
        others = record(Gather, shapes)
        assert len(others[0].ran) <= len(forward.ran) and len(others[1].ran) == len(backward.ran)
    by_grid_sample, _, _ = record(Reference)
    assert 3 * (len(forward.ran) + len(backward.ran)) < len(by_grid_sample.ran)


def test_values_are_read_where_they_lie():
    """No operation but those on their gradient has a result as large as the values."""
    large = [(16, 16), (8, 8)]
    forward, backward, (value, *_) = record(Gather, large, queries=1)
    for recorder, expected in ((forward, set()), (backward, {"new_zeros", "index_add_"})):
        found = {name for name, ts in recorder.ran for t in ts if t.numel() >= value.numel()}
        assert found == expected


def test_nothing_waits_for_the_device():
    forward, backward, _ = record(Gather)
    names = {*forward.names(), *backward.names()}
    assert {"index_select", "index_add_"} <= names
    assert not names & {"_local_scalar_dense", "nonzero", "masked_select", "index", "lift_fresh"}


def test_memory_is_bounded_for_any_number_of_queries(monkeypatch):
    sizes = {"channels": 16, "heads": 2, "points": 2}
    one_query = 2 * 2 * 4 * (len(SHAPES) * 2) * 16 * 4  # B M 4 T D bytes
    for queries in (5, 64):
        monkeypatch.setattr(gather, "CHUNK_BYTES", 7 * one_query)
        forward, backward, inputs = record(Gather, queries=queries, **sizes)
        bound = max(7 * one_query, *(x.nbytes for x in inputs))
        assert queries * one_query > bound or queries == 5
        for recorder in (forward, backward):
            assert max(t.untyped_storage().nbytes() for _, ts in recorder.ran for t in ts) <= bound
            assert recorder.names().count("index_select") == math.ceil(queries / 7)


def peak_memory(run):
    """What `run` gives, and the most bytes that were allocated at a time meanwhile."""
    with torch.profiler.profile(profile_memory=True) as profiler:
        result = run()
    events = profiler.profiler.kineto_results.events()
    held = itertools.accumulate(e.nbytes() for e in events if e.name() == "[memory]")
    return result, max(held)


def test_no_more_than_one_chunk_is_held(monkeypatch):
    sizes = {"channels": 32, "heads": 4, "points": 4}
    chunk = 10 * 2 * 4 * 4 * (len(SHAPES) * 4) * 32 * 4  # q B M 4 T D bytes
    monkeypatch.setattr(gather, "CHUNK_BYTES", chunk)
    value, places, *others = [x.float() for x in random_inputs(queries=60, **sizes)]
    inputs = [x.requires_grad_() for x in (value, *others)]
    levels = levels_of()
    output, forward = peak_memory(lambda: Gather.run(value, levels, places, *others))
    grad = torch.ones_like(output)
    _, backward = peak_memory(lambda: torch.autograd.grad(output, inputs, grad))
    # Beside the rows of a chunk there is one number or index for each row, a dozen times.
    assert chunk < forward - 2 * output.nbytes < 1.5 * chunk
    assert chunk < backward - 2 * sum(x.nbytes for x in inputs) < 1.5 * chunk


@pytest.mark.parametrize(("num_bytes", "num_chunks"), [(0, 11), (1500, 11), (10**4, 2)])
def test_chunks_give_what_the_whole_gives(num_bytes, num_chunks, monkeypatch):
    inputs = random_inputs(queries=11)
    whole = gradients(Gather, inputs)
    monkeypatch.setattr(gather, "CHUNK_BYTES", num_bytes)
    forward, _, _ = record(Gather, queries=11)
    assert forward.names().count("index_select") == num_chunks
    for result, expected in zip(gradients(Gather, inputs), whole):
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("offsets_dtype", [torch.float32, "the same"])
def test_half_precision_is_in_the_values_only(dtype, offsets_dtype):
    offsets_dtype = dtype if offsets_dtype == "the same" else offsets_dtype
    value, places, *others = random_inputs(queries=30, channels=8)
    places = places.float()
    rounded = [value.to(dtype), places, *(x.to(offsets_dtype) for x in others)]
    expected = gradients(Gather, [x.double() for x in rounded])
    results = gradients(Gather, rounded)
    loops = deform_attn_with_loops(SHAPES, *(x.double() for x in rounded))
    torch.testing.assert_close(expected[0], torch.from_numpy(loops), rtol=0, atol=1e-12)
    for result, exact, x in zip(results, expected, (rounded[0], rounded[0], *rounded[2:])):
        assert result.dtype == x.dtype
        # Rounded once or twice, in the output and in its gradient, and never in between.
        scale = torch.finfo(dtype).eps * exact.abs().amax()
        assert (result - exact).abs().max() <= 2 * scale


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_changes_nothing(dtype):
    value, *others = (x.float() for x in random_inputs())
    inputs = value.to(dtype), *others
    expected = gradients(Gather, inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        results = gradients(Gather, inputs)
    for result, same in zip(results, expected):
        assert result.dtype == same.dtype and torch.equal(result, same)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_broken_offset_breaks_its_own_query_only(bad):
    """The loss then tells of it; an index beyond the values would end the process on a device."""
    inputs = random_inputs()
    expected, *_ = gradients(Gather, inputs)
    inputs[2][1, 2] = bad
    result, *grads = gradients(Gather, inputs)
    assert result[1, 2].isnan().all()
    result[1, 2] = expected[1, 2]
    assert torch.equal(result, expected)
    assert grads[2][0].isfinite().all()
