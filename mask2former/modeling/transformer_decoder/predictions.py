"""What a transformer decoder says after each of its layers.

B batch, Q queries, C channels, K classes, H W the grid of the pixel feature.
"""

from collections.abc import ItemsView, Sequence

from torch import Tensor, nn

from mask2former.layers.mask_products import mask_products


class LayerPrediction(dict):
    """Has "pred_masks" (B,Q,H,W), made when they are first read; "pred_logits" (B,Q,K+1), if any.

    The masks of all layers would be the largest tensors of a step. The criterion needs few of them,
    and the others at few points: it takes "mask_embed" (B,Q,mask_dim) and "pixel_feature"
    (B,mask_dim,H,W), of which they are the product. Inference has those of the last layer alone.
    """

    def __missing__(self, key: str) -> Tensor:
        if key != "pred_masks":
            raise KeyError(key)
        return self.make_masks()

    def items(self) -> ItemsView:
        """With the masks: criteria written for the official decoders copy a prediction so."""
        self["pred_masks"]
        return super().items()

    def make_masks(self) -> Tensor:
        self["pred_masks"] = mask_products(self["mask_embed"], self["pixel_feature"])
        return self["pred_masks"]


class QueryPredictor(nn.Module):
    """A decoder whose queries become masks by `mask_embed`, and classes by `class_embed`."""

    mask_classification = True  # False: masks alone

    def predict(self, query: Tensor, pixel_feature: Tensor) -> LayerPrediction:
        """Shapes: (B,Q,C), (B,mask_dim,H,W)"""
        prediction = LayerPrediction(mask_embed=self.mask_embed(query), pixel_feature=pixel_feature)
        if self.mask_classification:
            prediction["pred_logits"] = self.class_embed(query)
        return prediction

    def join(self, predictions: Sequence[LayerPrediction]) -> LayerPrediction:
        """The last one, with the earlier ones as its "aux_outputs"."""
        *earlier, last = predictions
        if not self.training:
            last.make_masks()
        last["aux_outputs"] = earlier
        return last
