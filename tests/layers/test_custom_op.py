"""Our kernels as operators of torch: autograd, torch.compile and torch.export take them as one."""

import pytest
import torch
from deform_attn_cases import SHAPES, random_inputs
from torch import nn

from mask2former.layers.levels import describe_levels
from mask2former.layers.ms_deform_attn import MSDeformAttn, build_ms_deform_attn
from mask2former.layers.ms_deform_attn.custom_op import register
from mask2former.layers.ms_deform_attn.native import Native, attend

Dim = torch.export.Dim
FLAT_SHAPES = [n for shape in SHAPES for n in shape]


class OneMap(nn.Module):
    """Queries that look at one feature map."""

    def __init__(self, op_name="auto"):
        super().__init__()
        torch.manual_seed(0)
        self.attention = MSDeformAttn(8, num_levels=1, num_heads=2, num_points=2, op_name=op_name)
        for parameter in self.attention.parameters():
            nn.init.normal_(parameter)

    def forward(self, query, places, feature):  # (B,Q,C), (Q,2), (B,C,H,W) -> (B,Q,C)
        levels = describe_levels([tuple(feature.shape[2:])], feature.device)
        return self.attention(query, places, feature.flatten(2).transpose(1, 2), levels)


def inputs_of(queries, height, width):
    generator = torch.Generator().manual_seed(queries)
    return (
        torch.randn(2, queries, 8, generator=generator),
        torch.rand(queries, 2, generator=generator),
        torch.randn(2, 8, height, width, generator=generator),
    )


def is_chosen():
    return build_ms_deform_attn("auto", "cpu") is Native


@pytest.mark.parametrize("scattered", [False, True])
def test_torch_finds_the_operator_sound(scattered):
    value, places, offsets, logits = random_inputs()
    if scattered:
        value = value.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
        logits = logits[:1, :1].expand(2, 4, -1, -1, -1)
    learned = (x.detach().requires_grad_() for x in (value, offsets, logits))
    value, offsets, logits = learned
    torch.library.opcheck(attend, (value, FLAT_SHAPES, places, offsets, logits))


def test_compiled_in_one_piece_for_any_size():
    model = OneMap()
    graphs = []

    def count(graph, _):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=count)
    for sizes in ((5, 3, 4), (6, 7, 5), (9, 4, 6)):
        inputs = inputs_of(*sizes)
        torch.testing.assert_close(compiled(*inputs), model(*inputs))
    assert len(graphs) == 1
    targets = {str(node.target) for node in graphs[0].graph.nodes}
    assert any("ms_deform_attn_native" in target for target in targets) == is_chosen()


def test_compiled_gradients():
    model = OneMap()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")
    inputs, parameters = inputs_of(5, 3, 4), list(model.parameters())
    results = torch.autograd.grad(compiled(*inputs).square().sum(), parameters)
    expected = torch.autograd.grad(model(*inputs).square().sum(), parameters)
    for result, same in zip(results, expected):
        torch.testing.assert_close(result, same)


def test_exported_for_any_size():
    model = OneMap("Native")
    queries = Dim("queries", min=2, max=64)
    sizes = {2: Dim("height", min=2, max=64), 3: Dim("width", min=2, max=64)}
    program = torch.export.export(
        model, inputs_of(5, 3, 4), dynamic_shapes=({1: queries}, {0: queries}, sizes)
    )
    names = [str(n.target) for n in program.graph.nodes if "mask2former" in str(n.target)]
    assert names == ["mask2former.ms_deform_attn_native.default"]
    inputs = inputs_of(9, 6, 5)
    torch.testing.assert_close(program.module()(*inputs), model(*inputs))


def test_gradients_have_no_gradients():
    """Rather than wrong ones."""
    value, places, offsets, logits = (x.requires_grad_() for x in random_inputs())
    output = attend(value, FLAT_SHAPES, places.detach(), offsets, logits)
    (grad,) = torch.autograd.grad(output.sum(), value, create_graph=True)
    with pytest.raises(RuntimeError):
        grad.sum().backward()


def test_kernels_get_contiguous_tensors_and_the_levels():
    seen = []

    def forward(value, shapes, places, offsets, logits):
        seen.append((shapes, value, places, offsets, logits))
        return value.new_zeros(2, 4, 6)

    op = register("for_this_test", "cpu", forward, backward=None)
    value, places, offsets, logits = (x.transpose(0, 1) for x in random_inputs())
    inputs = [x.contiguous().transpose(0, 1) for x in (value, places, offsets, logits)]
    assert not any(x.is_contiguous() for x in inputs)
    op(inputs[0], FLAT_SHAPES, *inputs[1:])
    ((shapes, *tensors),) = seen
    assert list(shapes) == FLAT_SHAPES
    for tensor, x in zip(tensors, inputs):
        assert tensor.is_contiguous() and torch.equal(tensor, x)
