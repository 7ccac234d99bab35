"""MaskFormer's head: a pixel decoder, then a transformer decoder (paper, fig. 2).

B batch, Q queries, K classes, H W the stride-4 grid.
"""

from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn

from mask2former.modeling.pixel_decoder.build import build_pixel_decoder
from mask2former.modeling.transformer_decoder.build import build_transformer_decoder


@SEM_SEG_HEADS_REGISTRY.register()
class MaskFormerHead(nn.Module):
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
            transformer_in_feature: what the transformer decoder looks at:
                "multi_scale_pixel_decoder": the pixel decoder's three levels (Mask2Former);
                "transformer_encoder": its encoder's coarsest level; "pixel_embedding": the pixel
                feature; or the name of a backbone feature.
        """
        super().__init__()
        self.num_classes = num_classes
        self.pixel_decoder = pixel_decoder
        self.predictor = transformer_predictor
        self.transformer_in_feature = transformer_in_feature

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        head = cfg.MODEL.SEM_SEG_HEAD
        in_feature = cfg.MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE
        in_channels = {
            "multi_scale_pixel_decoder": head.CONVS_DIM,
            "transformer_encoder": head.CONVS_DIM,
            "pixel_embedding": head.MASK_DIM,
            **{name: shape.channels for name, shape in input_shape.items()},
        }
        if in_feature not in in_channels:
            raise ValueError(
                f"MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE={in_feature!r}; "
                f"set it to one of {', '.join(in_channels)}"
            )
        return {
            "num_classes": head.NUM_CLASSES,
            "pixel_decoder": build_pixel_decoder(cfg, input_shape),
            "transformer_predictor": build_transformer_decoder(cfg, in_channels[in_feature]),
            "transformer_in_feature": in_feature,
        }

    def forward(self, features: dict[str, Tensor]) -> dict:
        """Shapes: {name: (B,*,*,*)} -> {"pred_logits": (B,Q,K+1), "pred_masks": (B,Q,H,W), ...}"""
        pixel_feature, encoder_feature, multi_scale = self.pixel_decoder.forward_features(features)
        looked_at = {
            **features,
            "multi_scale_pixel_decoder": multi_scale,
            "transformer_encoder": encoder_feature,
            "pixel_embedding": pixel_feature,
        }
        return self.predictor(looked_at[self.transformer_in_feature], pixel_feature)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        # Early official checkpoints keep the pixel decoder's weights at the head itself.
        children = (f"{prefix}pixel_decoder.", f"{prefix}predictor.")
        for key in [k for k in state_dict if k.startswith(prefix) and not k.startswith(children)]:
            state_dict[children[0] + key.removeprefix(prefix)] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args)
