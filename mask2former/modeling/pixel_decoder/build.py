"""Which pixel decoder a config asks for; they register as SEM_SEG_HEADS, like the official ones."""

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import nn


def build_pixel_decoder(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> nn.Module:
    """The head that MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME names.

    Its `forward_features(features)` returns (pixel_feature, encoder_feature, multi_scale_features):
    the feature that masks are read from; the encoder's map of the lowest resolution, or None; and
    three maps from low to high resolution. One without an encoder says `has_encoder = False`.

    Raises:
        ValueError: there is no such head, it is not a pixel decoder, or the backbone lacks a
            feature that it should take.
    """
    in_features = cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES
    missing = [name for name in in_features if name not in input_shape]
    if missing or not in_features:
        raise ValueError(
            f"MODEL.SEM_SEG_HEAD.IN_FEATURES={list(in_features)}; "
            f"choose from what the backbone gives: {', '.join(input_shape)}"
        )
    name = cfg.MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME
    if name not in SEM_SEG_HEADS_REGISTRY:
        raise ValueError(
            f"MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME={name!r} is not registered; "
            "set it to a pixel decoder, e.g. MSDeformAttnPixelDecoder"
        )
    decoder = SEM_SEG_HEADS_REGISTRY.get(name)(cfg, input_shape)
    if not callable(getattr(decoder, "forward_features", None)):
        raise ValueError(
            f"MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME={name!r} has no forward_features method; "
            "set it to a pixel decoder, e.g. MSDeformAttnPixelDecoder"
        )
    return decoder
