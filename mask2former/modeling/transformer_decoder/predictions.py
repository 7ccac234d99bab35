"""What a transformer decoder says after each of its layers.

D predictions, B batch, Q queries, C channels, K classes, H W the grid of the pixel feature.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mask2former.layers.mask_products import mask_products


class QueryPredictor(nn.Module):
    """A decoder whose queries become masks by `mask_embed`, and classes by `class_embed`."""

    mask_classification = True  # False: masks alone

    def predict(self, queries: Sequence[Tensor], pixel_feature: Tensor) -> list[dict[str, Tensor]]:
        """Shapes: D x (B,Q,C), (B,mask_dim,H,W) ->
        D x {"pred_logits": (B,Q,K+1), "pred_masks": (B,Q,H,W)}
        """
        masks = mask_products([self.mask_embed(query) for query in queries], pixel_feature)
        if not self.mask_classification:
            return [{"pred_masks": mask} for mask in masks]
        return [
            {"pred_logits": self.class_embed(query), "pred_masks": mask}
            for query, mask in zip(queries, masks)
        ]

    def outputs(self, queries: Sequence[Tensor], pixel_feature: Tensor) -> dict:
        """The last prediction, and as "aux_outputs" the earlier ones: see `predict`.

        They are a list in training, else DeferredPredictions.
        """
        if self.training:
            *earlier, last = self.predict(queries, pixel_feature)
        else:
            (last,) = self.predict(queries[-1:], pixel_feature)
            earlier = DeferredPredictions(self, queries[:-1], pixel_feature)
        return {**last, "aux_outputs": earlier}


class DeferredPredictions(Sequence):
    """Predictions that are made whenever they are read.

    Inference reads only the last one, whose masks take as long as the others' each. Whoever reads
    the others, as the official code gives them, still finds them.
    """

    def __init__(self, decoder: QueryPredictor, queries: Sequence[Tensor], pixel_feature: Tensor):
        self.decoder = decoder
        self.queries = queries
        self.pixel_feature = pixel_feature
        self.with_gradients = torch.is_grad_enabled()

    def __len__(self) -> int:
        return len(self.queries)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        with torch.set_grad_enabled(self.with_gradients):
            (prediction,) = self.decoder.predict([self.queries[index]], self.pixel_feature)
        return prediction
