"""What the op is made for: a CPU without a compiler, and little memory there."""

import pytest
import torch
from deform_attn_cases import SHAPES, gradients, levels_of, random_inputs
from peak_memory import peak_memory

from mask2former.layers.ms_deform_attn import embedding_bag
from mask2former.layers.ms_deform_attn.embedding_bag import EmbeddingBag
from mask2former.layers.ms_deform_attn.gather import Gather
from mask2former.layers.ms_deform_attn.reference import Reference


def run(op, inputs, shapes=SHAPES):
    return op.run(inputs[0], levels_of(shapes), *inputs[1:])


def learned_of(inputs):
    return [x.requires_grad_() for x in (inputs[0], *inputs[2:])]


def test_it_is_the_best_that_needs_no_compiler():
    ranks = [op.rank("cpu") for op in (EmbeddingBag, Reference, Gather)]
    assert ranks == sorted(set(ranks), reverse=True)
    assert "CPU" in EmbeddingBag.why_not("elsewhere")


def memory(op, inputs, shapes):
    """The most bytes held by a forward pass alone, and by one with its backward pass."""
    with torch.no_grad():
        _, forward = peak_memory(lambda: run(op, inputs, shapes))
    learned = learned_of(inputs)
    _, step = peak_memory(lambda: torch.autograd.grad(run(op, inputs, shapes).sum(), learned))
    return forward, step


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_half_the_memory_of_grid_sample(dtype, monkeypatch):
    """A picture of 512 x 1024 pixels, but that and the chunks a quarter of their sizes."""
    monkeypatch.setattr(embedding_bag, "CHUNK_CORNERS", embedding_bag.CHUNK_CORNERS // 4)
    shapes = [(8, 16), (16, 32), (32, 64)]
    sizes = {"batch": 1, "queries": 2688, "heads": 8, "channels": 32, "points": 4}
    value, places, *others = random_inputs(shapes, **sizes)
    inputs = [value.to(dtype), places.float(), *(x.to(dtype) for x in others)]
    pairs = zip(memory(EmbeddingBag, inputs, shapes), memory(Reference, inputs, shapes))
    assert all(own <= other / 2 for own, other in pairs)


def test_only_inputs_are_kept_for_backward():
    inputs = [x.float() for x in random_inputs()]
    learned = learned_of(inputs)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        output = run(EmbeddingBag, inputs)
    levels = {x.shape for x in levels_of()[1:]}
    found = {x.data_ptr() for x in kept if x.shape not in levels}
    assert found == {x.data_ptr() for x in inputs}
    output.sum().backward()
    assert all(x.grad.shape == x.shape for x in learned)


@pytest.mark.parametrize("num_corners", [0, 100, 1000])
def test_chunks_give_what_the_whole_gives(num_corners, monkeypatch):
    inputs = random_inputs(queries=11)
    whole = gradients(EmbeddingBag, inputs)
    monkeypatch.setattr(embedding_bag, "CHUNK_CORNERS", num_corners)
    for result, expected in zip(gradients(EmbeddingBag, inputs), whole):
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-14)


def test_torch_finds_the_operator_sound():
    value, places, offsets, logits = random_inputs()
    value, offsets, logits = (x.requires_grad_() for x in (value, offsets, logits))
    levels = levels_of()
    inputs = (value, levels.sizes, levels.starts, places, offsets, logits)
    torch.library.opcheck(embedding_bag._attend, inputs)


def test_compiled_in_one_piece():
    class Compiled:
        run = torch.compile(EmbeddingBag.run, fullgraph=True, backend="aot_eager")

    inputs = random_inputs()
    for result, same in zip(gradients(Compiled, inputs), gradients(EmbeddingBag, inputs)):
        assert torch.equal(result, same)
