"""What the op is made for: few operations, none of which waits, and a bound on the memory."""

import math

import pytest
import torch
from deform_attn_cases import SHAPES, gradients, levels_of, random_inputs
from peak_memory import peak_memory
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
