import pytest
import torch

from mask2former.layers.mask_products import mask_products


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_masks_and_gradients_are_those_of_the_definition(layout):
    torch.manual_seed(0)
    embedding = torch.randn(2, 5, 4, dtype=torch.float64)
    pixel_feature = torch.randn(2, 4, 3, 7, dtype=torch.float64).contiguous(memory_format=layout)
    inputs = [x.requires_grad_() for x in (embedding, pixel_feature)]
    masks, expected = mask_products(*inputs), torch.einsum("bqc,bchw->bqhw", *inputs)
    torch.testing.assert_close(masks, expected)
    gradients = [torch.autograd.grad(m.square().sum(), inputs) for m in (masks, expected)]
    torch.testing.assert_close(*gradients)


def test_masks_have_the_type_of_the_embeddings():
    embedding, pixel_feature = torch.randn(1, 2, 4).bfloat16(), torch.randn(1, 4, 3, 3)
    assert mask_products(embedding, pixel_feature).dtype == torch.bfloat16
