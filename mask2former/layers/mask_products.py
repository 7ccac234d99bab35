"""Masks as products of queries' embeddings and a feature map (paper, sec. 3.1).

D predictions, B batch, Q queries, C channels, H W the feature map's grid, S = H * W.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable


def mask_products(embeddings: Sequence[Tensor], pixel_feature: Tensor) -> list[Tensor]:
    """How well each embedding fits each pixel: D x (B,Q,C), (B,C,H,W) -> D x (B,Q,H,W)"""
    size = pixel_feature.shape[-2:]
    pixels = pixel_feature.flatten(2)  # with channels last too, it is a view
    if is_free_to_ask(pixels):
        masks = _Products.apply(pixels, *embeddings)
    else:
        masks = [embedding @ pixels for embedding in embeddings]
    return [mask.unflatten(2, size) for mask in masks]


def is_free_to_ask(tensor: Tensor) -> bool:
    """Whether nobody waits for an answer that depends on the tensor's values.

    A device would have to finish all its work first, and a compiler to know the values.
    """
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()


class _Products(torch.autograd.Function):
    """Each embedding times each pixel; in backward without the queries that have no gradient.

    Those are most: a mask loss is for the few queries that are matched with a target.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, pixels: Tensor, *embeddings: Tensor) -> tuple[Tensor, ...]:
        """Shapes: (B,C,S), D x (B,Q,C) -> D x (B,Q,S)"""
        ctx.save_for_backward(pixels, *embeddings)
        ctx.set_materialize_grads(False)
        return tuple(embedding @ pixels for embedding in embeddings)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Shapes: D x (B,Q,S) -> (B,C,S), D x (B,Q,C)"""
        pixels, *embeddings = ctx.saved_tensors
        given = [index for index, grad in enumerate(grads) if grad is not None]
        if not given:
            return None, *grads
        queries = [grads[index].any(2).any(0).nonzero()[:, 0] for index in given]
        grad = torch.cat([grads[i][:, some] for i, some in zip(given, queries)], 1)  # (B,N,S)
        embedding = torch.cat([embeddings[i][:, some] for i, some in zip(given, queries)], 1)

        of_pixels = (grad.transpose(1, 2) @ embedding.to(grad)).transpose(1, 2).to(pixels)
        of_embedding = (grad @ pixels.transpose(1, 2).to(grad)).to(embedding)  # (B,N,C)
        of_embeddings = [None] * len(grads)
        for i, some, part in zip(given, queries, of_embedding.split([*map(len, queries)], 1)):
            of_embeddings[i] = torch.zeros_like(embeddings[i]).index_copy_(1, some, part)
        return of_pixels, *of_embeddings
