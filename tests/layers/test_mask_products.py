import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mask2former.layers.mask_products import mask_products


def make_inputs(dtype=torch.float64, layout=torch.channels_last):
    torch.manual_seed(0)
    embeddings = [torch.randn(2, 5, 4, dtype=dtype) for _ in range(3)]
    pixel_feature = torch.randn(2, 4, 3, 7, dtype=dtype).contiguous(memory_format=layout)
    return [x.requires_grad_() for x in (*embeddings, pixel_feature)]


def by_einsum(*inputs):
    *embeddings, pixel_feature = inputs
    return [torch.einsum("bqc,bchw->bqhw", x, pixel_feature) for x in embeddings]


def by_product(*inputs):
    *embeddings, pixel_feature = inputs
    return mask_products(embeddings, pixel_feature)


def some_of(masks):
    """Of the first prediction, two queries of one image and one of the other; of the last, one."""
    return masks[0][0, [1, 3]].square().sum() + masks[0][1, 0].sum() + masks[2][1, 4].sin().sum()


def all_of(masks):
    return sum(mask.square().sum() for mask in masks)


def none_of(masks):
    return 0 * masks[1].sum()


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("loss", [some_of, all_of, none_of])
def test_masks_and_gradients_are_those_of_plain_products(loss, layout):
    inputs = make_inputs(layout=layout)
    masks, expected = by_product(*inputs), by_einsum(*inputs)
    torch.testing.assert_close(masks, expected)
    with_grad = {"allow_unused": True, "materialize_grads": True}
    gradients = torch.autograd.grad(loss(masks), inputs, **with_grad)
    expected = torch.autograd.grad(loss(expected), inputs, **with_grad)
    torch.testing.assert_close(gradients, expected)


def test_gradients_are_those_of_finite_differences():
    assert torch.autograd.gradcheck(lambda *x: tuple(by_product(*x)), make_inputs())


def test_a_frozen_pixel_feature_or_embedding():
    *embeddings, pixel_feature = make_inputs()
    some_of(mask_products(embeddings, pixel_feature.detach())).backward()
    assert embeddings[0].grad is not None and pixel_feature.grad is None
    some_of(mask_products([x.detach() for x in embeddings], pixel_feature)).backward()
    assert pixel_feature.grad is not None


def test_gradients_that_are_not_finite_stay_so():
    """The loss scaler and the anomaly detection have to find them."""
    inputs = make_inputs()
    masks = by_product(*inputs)
    (masks[1][0, 2, 0, 0] * torch.nan).backward()
    assert inputs[1].grad[0, 2].isnan().all() and inputs[-1].grad[0, :, 0, 0].isnan().all()
    assert (inputs[1].grad[:, :2] == 0).all() and inputs[0].grad is None


def test_half_precision_has_the_types_and_the_numbers_of_plain_products():
    inputs = make_inputs(torch.float32)
    results = []
    for products in (by_product, by_einsum):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            masks = products(*inputs)
        assert all(mask.dtype == torch.bfloat16 for mask in masks)
        gradients = torch.autograd.grad(some_of([m.float() for m in masks]), inputs[2:])
        assert all(gradient.dtype == torch.float32 for gradient in gradients)
        results.append((masks, gradients))
    torch.testing.assert_close(*results, rtol=0.02, atol=0.1)


class ProductSizes(TorchDispatchMode):
    """How many numbers each batched product takes and gives."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ == "bmm":
            self.sizes.append(tuple(args[0].shape[-2:]) + tuple(args[1].shape[-1:]))
        return result


def test_backward_multiplies_no_query_without_a_gradient():
    inputs = make_inputs()
    loss = some_of(by_product(*inputs))
    with ProductSizes() as products:
        loss.backward()
    # Queries 0, 1, 3 of the first prediction and 4 of the last; 4 channels, 21 pixels.
    assert sorted(products.sizes) == [(4, 21, 4), (21, 4, 4)]


def test_a_compiler_traces_plain_products():
    compiled = torch.compile(by_product, backend="eager", fullgraph=True)
    inputs = make_inputs()
    torch.testing.assert_close(compiled(*inputs), by_einsum(*inputs))
