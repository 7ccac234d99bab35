"""Masks as products of queries' embeddings and a feature map (paper, sec. 3.1).

B batch, Q queries, C channels, H W the feature map's grid.
"""

from torch import Tensor


def mask_products(embedding: Tensor, pixel_feature: Tensor) -> Tensor:
    """How well each embedding fits each pixel, in the type of the embeddings.

    Shapes: (B,Q,C), (B,C,H,W) -> (B,Q,H,W)
    """
    pixels = pixel_feature.flatten(2).to(embedding.dtype)  # with channels last too, it is a view
    return (embedding @ pixels).unflatten(2, pixel_feature.shape[-2:])
