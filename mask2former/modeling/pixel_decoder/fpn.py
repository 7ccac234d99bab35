"""MaskFormer's pixel decoders: a feature pyramid, with or without an encoder below it.

B batch, C channels, H W the grid of the finest backbone feature.
"""

from collections.abc import Callable

import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from fvcore.nn.weight_init import c2_xavier_fill
from torch import Tensor, nn

from mask2former.layers.checkpointing import recompute_in_backward
from mask2former.layers.detr import Encoder
from mask2former.layers.position_encoding import pixels_and_positions

NUM_OUTPUT_LEVELS = 3  # what Mask2Former's transformer decoder takes


@SEM_SEG_HEADS_REGISTRY.register()
class BasePixelDecoder(nn.Module):
    """Top-down from the coarsest backbone feature to the finest (MaskFormer, sec. 3.4)."""

    has_encoder = False

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        conv_dim: int,
        mask_dim: int,
        norm: str | Callable | None = None,
        use_checkpoint: bool = False,
    ):
        """
        Args:
            input_shape: channels and stride of each backbone feature.
            conv_dim: C.
            mask_dim: channels of the pixel feature.
            norm: normalisation of the convolutions, as detectron2's get_norm takes it.
            use_checkpoint: keep only the inputs of each 3x3 convolution for backward, and of each
                layer of an encoder.
        """
        super().__init__()
        # Official keys count from the highest resolution, which comes last in `forward_features`.
        self.in_features = sorted(input_shape, key=lambda name: input_shape[name].stride)
        coarsest = len(self.in_features)

        def convolution(in_channels: int, kernel_size: int, **options: Callable) -> Conv2d:
            layer = Conv2d(
                in_channels,
                conv_dim,
                kernel_size=kernel_size,
                padding=kernel_size // 2,
                bias=norm == "",
                norm=get_norm(norm, conv_dim),
                **options,
            )
            c2_xavier_fill(layer)
            return layer

        for index, name in enumerate(self.in_features, start=1):
            channels = input_shape[name].channels
            if index < coarsest:
                self.add_module(f"adapter_{index}", convolution(channels, 1))
            if index < coarsest or self.has_encoder:
                channels = conv_dim
            self.add_module(f"layer_{index}", convolution(channels, 3, activation=F.relu_))
        if use_checkpoint:
            recompute_in_backward(getattr(self, f"layer_{i + 1}") for i in range(coarsest))
        self.mask_features = Conv2d(conv_dim, mask_dim, kernel_size=3, padding=1)
        c2_xavier_fill(self.mask_features)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        head = cfg.MODEL.SEM_SEG_HEAD
        return {
            "input_shape": {k: v for k, v in input_shape.items() if k in head.IN_FEATURES},
            "conv_dim": head.CONVS_DIM,
            "mask_dim": head.MASK_DIM,
            "norm": head.NORM,
            "use_checkpoint": head.USE_CHECKPOINT,
        }

    def encode(self, feature: Tensor) -> Tensor:
        """What happens to the coarsest feature before the way down: here nothing."""
        return feature

    def forward_features(
        self, features: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor | None, list[Tensor]]:
        """The pixel feature, the encoder's map if there is an encoder, levels from coarse to fine.

        Shapes: {name: (B,*,*,*)} -> (B,mask_dim,H,W), (B,C,*,*), 3 x (B,C,*,*)
        """
        coarsest = len(self.in_features)
        encoded = self.encode(features[self.in_features[-1]])
        pyramid = [getattr(self, f"layer_{coarsest}")(encoded)]
        for index in range(coarsest - 1, 0, -1):
            lateral = getattr(self, f"adapter_{index}")(features[self.in_features[index - 1]])
            lateral.add_(F.interpolate(pyramid[-1], size=lateral.shape[-2:], mode="nearest"))
            pyramid.append(getattr(self, f"layer_{index}")(lateral))
        return (
            self.mask_features(pyramid[-1]),
            encoded if self.has_encoder else None,
            pyramid[:NUM_OUTPUT_LEVELS],
        )


@SEM_SEG_HEADS_REGISTRY.register()
class TransformerEncoderPixelDecoder(BasePixelDecoder):
    """DETR's encoder on the coarsest feature, then the same way down (MaskFormer, sec. 4.1)."""

    has_encoder = True

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        transformer_dropout: float,
        transformer_nheads: int,
        transformer_dim_feedforward: int,
        transformer_enc_layers: int,
        transformer_pre_norm: bool,
        conv_dim: int,
        mask_dim: int,
        norm: str | Callable | None = None,
        use_checkpoint: bool = False,
    ):
        """See BasePixelDecoder; the rest is of the encoder's layers."""
        super().__init__(
            input_shape,
            conv_dim=conv_dim,
            mask_dim=mask_dim,
            norm=norm,
            use_checkpoint=use_checkpoint,
        )
        coarsest = input_shape[self.in_features[-1]]
        self.input_proj = Conv2d(coarsest.channels, conv_dim, kernel_size=1)
        c2_xavier_fill(self.input_proj)
        encoder = Encoder(
            transformer_enc_layers,
            conv_dim,
            transformer_nheads,
            transformer_dim_feedforward,
            transformer_dropout,
            transformer_pre_norm,
        )
        if use_checkpoint:
            recompute_in_backward(encoder.layers)
        self.transformer = nn.ModuleDict({"encoder": encoder})  # official keys

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        mask_former = cfg.MODEL.MASK_FORMER
        return {
            **super().from_config(cfg, input_shape),
            "transformer_dropout": mask_former.DROPOUT,
            "transformer_nheads": mask_former.NHEADS,
            "transformer_dim_feedforward": mask_former.DIM_FEEDFORWARD,
            "transformer_enc_layers": cfg.MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS,
            "transformer_pre_norm": mask_former.PRE_NORM,
        }

    def encode(self, feature: Tensor) -> Tensor:
        """Shapes: (B,*,h,w) -> (B,C,h,w)"""
        feature = self.input_proj(feature)
        encoded = self.transformer["encoder"](*pixels_and_positions(feature))
        return encoded.transpose(1, 2).unflatten(2, feature.shape[-2:])
