"""The registry of transformer decoders, and which one a config asks for."""

from detectron2.config import CfgNode
from detectron2.utils.registry import Registry
from torch import nn

TRANSFORMER_DECODER_REGISTRY = Registry("TRANSFORMER_MODULE")
TRANSFORMER_DECODER_REGISTRY.__doc__ = """
Modules called with (features, pixel_feature) that return "pred_logits" (B,Q,K+1), "pred_masks"
(B,Q,H,W) and, of the layers before the last, "aux_outputs": a list of such dicts. Where they give
"mask_embed" (B,Q,C) and "pixel_feature" (B,C,H,W), of which the masks are the product, the
criterion makes of them what it needs, and does not read the masks.
"""


def build_transformer_decoder(
    cfg: CfgNode, in_channels: int, mask_classification: bool = True
) -> nn.Module:
    """The decoder that MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME names.

    Raises:
        ValueError: there is none of this name.
    """
    name = cfg.MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME
    if name not in TRANSFORMER_DECODER_REGISTRY:
        known = ", ".join(known for known, _ in TRANSFORMER_DECODER_REGISTRY)
        raise ValueError(
            f"MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME={name!r}; set it to one of {known}"
        )
    return TRANSFORMER_DECODER_REGISTRY.get(name)(cfg, in_channels, mask_classification)
