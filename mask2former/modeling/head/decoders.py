"""What heads have in common: a pixel decoder, and what a transformer decoder looks at."""

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from torch import Tensor, nn


class WithPixelDecoder(nn.Module):
    """A head with the children `pixel_decoder` and `predictor`, as official checkpoints have it."""

    _version = 2  # official code takes checkpoints of an earlier one for those below

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        # Early official checkpoints keep the pixel decoder's weights at the head itself.
        children = (f"{prefix}pixel_decoder.", f"{prefix}predictor.")
        for key in [k for k in state_dict if k.startswith(prefix) and not k.startswith(children)]:
            state_dict[children[0] + key.removeprefix(prefix)] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args)


def transformer_in_channels(
    cfg: CfgNode, input_shape: dict[str, ShapeSpec], pixel_decoder: nn.Module
) -> int:
    """Channels of what MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE names; see `decoder_inputs`.

    Raises:
        ValueError: there is no such thing, or not with this pixel decoder.
    """
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
    if in_feature == "transformer_encoder" and not getattr(pixel_decoder, "has_encoder", True):
        raise ValueError(
            f"MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE={in_feature!r}, but "
            f"{head.PIXEL_DECODER_NAME} has no encoder; set it to res5, or "
            "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME to TransformerEncoderPixelDecoder"
        )
    if in_feature == "multi_scale_pixel_decoder" and len(head.IN_FEATURES) < 3:
        raise ValueError(
            f"MODEL.SEM_SEG_HEAD.IN_FEATURES={list(head.IN_FEATURES)}, but three levels are "
            f"looked at (MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE={in_feature!r}); name three"
        )
    return in_channels[in_feature]


def decoder_inputs(
    in_feature: str, features: dict[str, Tensor], pixel_decoder: nn.Module
) -> tuple[Tensor | list[Tensor], Tensor]:
    """Run the pixel decoder: what the transformer decoder looks at, and what masks are read from.

    Args:
        in_feature: "multi_scale_pixel_decoder": the pixel decoder's three levels (Mask2Former);
            "transformer_encoder": its encoder's coarsest level; "pixel_embedding": the pixel
            feature; or the name of a backbone feature.
        features: of the backbone.
    """
    pixel_feature, encoder_feature, multi_scale = pixel_decoder.forward_features(features)
    seen = {
        **features,
        "multi_scale_pixel_decoder": multi_scale,
        "transformer_encoder": encoder_feature,
        "pixel_embedding": pixel_feature,
    }
    return seen[in_feature], pixel_feature
