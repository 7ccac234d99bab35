"""MaskFormer's head: a pixel decoder, then a transformer decoder (paper, fig. 2).

B batch, Q queries, K classes, H W the stride-4 grid.
"""

from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn

from mask2former.modeling.head.decoders import (
    WithPixelDecoder,
    decoder_inputs,
    transformer_in_channels,
)
from mask2former.modeling.pixel_decoder.build import build_pixel_decoder
from mask2former.modeling.transformer_decoder.build import build_transformer_decoder


@SEM_SEG_HEADS_REGISTRY.register()
class MaskFormerHead(WithPixelDecoder):
    """Wires any pixel decoder to any transformer decoder."""

    @configurable
    def __init__(
        self,
        *,
        num_classes: int,
        pixel_decoder: nn.Module,
        transformer_predictor: nn.Module,
        transformer_in_feature: str,
    ):
        """
        Args:
            num_classes: K, without "no object".
            transformer_in_feature: what the transformer decoder looks at; see `decoder_inputs`.
        """
        super().__init__()
        self.num_classes = num_classes
        self.pixel_decoder = pixel_decoder
        self.predictor = transformer_predictor
        self.transformer_in_feature = transformer_in_feature

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        pixel_decoder = build_pixel_decoder(cfg, input_shape)
        in_channels = transformer_in_channels(cfg, input_shape, pixel_decoder)
        return {
            "num_classes": cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
            "pixel_decoder": pixel_decoder,
            "transformer_predictor": build_transformer_decoder(cfg, in_channels),
            "transformer_in_feature": cfg.MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE,
        }

    def forward(self, features: dict[str, Tensor]) -> dict:
        """Shapes: {name: (B,*,*,*)} -> {"pred_logits": (B,Q,K+1), "pred_masks": (B,Q,H,W), ...}"""
        feature, pixel_feature = decoder_inputs(
            self.transformer_in_feature, features, self.pixel_decoder
        )
        return self.predictor(feature, pixel_feature)
