"""Which pixel decoder a config asks for; they register as SEM_SEG_HEADS, like the official ones."""

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import nn


def build_pixel_decoder(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> nn.Module:
    """The head that MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME names.

    Its `forward_features(features)` returns (pixel_feature, encoder_feature, multi_scale_features):
    the feature that masks are read from; the encoder's map of the lowest resolution, or None; and
    three maps from low to high resolution.

    Raises:
        ValueError: there is no such head, or it is not a pixel decoder.
    """
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
