"""The multi-scale deformable attention pixel decoder (paper, sec. 3.2.2 and 4.1).

B batch, C channels, L levels (stride 32, 16, 8), S = sum of H * W over the levels.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from fvcore.nn.weight_init import c2_xavier_fill
from torch import Tensor, nn

from mask2former.device import full_precision
from mask2former.layers.checkpointing import recompute_in_backward
from mask2former.layers.detr import Layer
from mask2former.layers.kept import kept
from mask2former.layers.levels import Levels, describe_levels
from mask2former.layers.ms_deform_attn import MSDeformAttn
from mask2former.layers.position_encoding import pixels_and_positions

NUM_OUTPUT_LEVELS = 3  # what the transformer decoder takes (paper, sec. 3.2.2)


class DeformableEncoderLayer(Layer):
    """Deformable self-attention, then a feed-forward network, each normalised after its sum."""

    def forward(
        self,
        feature: Tensor,
        position: Tensor,
        reference_points: Tensor,
        levels: Levels,
    ) -> Tensor:
        """Shapes: (B,S,C), (S,C), (S,2), L levels -> (B,S,C)"""

        def attend(x: Tensor) -> Tensor:
            return self.self_attn(x + position, reference_points, x, levels)

        feature = self.step(feature, self.norm1, attend)
        return self.feed_forward(feature, self.norm2)


class DeformableEncoder(nn.Module):
    """Lets each pixel of each level look at a few pixels of every level."""

    def __init__(self, layers: Sequence[DeformableEncoderLayer], dim: int, num_levels: int):
        super().__init__()
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(layers)})  # official keys
        self.level_embed = nn.Parameter(torch.randn(num_levels, dim))

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Shapes: L x (B,C,H,W) -> L x (B,C,H,W)"""
        shapes = tuple(tuple(feature.shape[-2:]) for feature in features)
        pixels, positions = zip(*(pixels_and_positions(feature) for feature in features))
        feature = torch.cat(pixels, dim=1)
        position = torch.cat([p + embedding for p, embedding in zip(positions, self.level_embed)])
        position = position.to(feature.dtype)  # once, not in each layer's sum
        levels, reference_points = levels_and_centers(shapes, feature.device)
        for layer in self.encoder["layers"]:
            feature = layer(feature, position, reference_points, levels)
        split = feature.split([math.prod(shape) for shape in shapes], dim=1)
        # Channels last: to permute comes last, or torch would not see it of a single image.
        return [
            level.unflatten(1, shape).permute(0, 3, 1, 2) for level, shape in zip(split, shapes)
        ]


def pixel_centers(height: int, width: int, device: torch.device) -> Tensor:
    """(x, y) of the centre of each pixel, in [0, 1], row by row: (H*W,2)."""
    y = (torch.arange(height, dtype=torch.float32, device=device) + 0.5) / height
    x = (torch.arange(width, dtype=torch.float32, device=device) + 0.5) / width
    return torch.cartesian_prod(y, x).flip(-1)


@kept
def levels_and_centers(
    shapes: tuple[tuple[int, int], ...], device: torch.device
) -> tuple[Levels, Tensor]:
    """What deformable attention has to know of L x (H,W): the levels, and their centres (S,2)."""
    centers = torch.cat([pixel_centers(*shape, device) for shape in shapes])
    return describe_levels(shapes, device), centers


@SEM_SEG_HEADS_REGISTRY.register()
class MSDeformAttnPixelDecoder(nn.Module):
    """Deformable encoder over stride 32, 16, 8; from there top-down (FPN) to the pixel feature."""

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        transformer_dropout: float,
        transformer_nheads: int,
        transformer_dim_feedforward: int,
        transformer_enc_layers: int,
        conv_dim: int,
        mask_dim: int,
        norm: str | Callable | None = None,
        transformer_in_features: Sequence[str],
        transformer_num_points: int = 4,
        common_stride: int,
        ms_deform_attn: str = "auto",
        use_checkpoint: bool = False,
        half_inference: bool = False,
    ):
        """
        Args:
            input_shape: channels and stride of each backbone feature.
            conv_dim: C, channels of the encoder and of the levels that come out.
            mask_dim: channels of the pixel feature.
            norm: normalisation of the top-down convolutions, as detectron2's get_norm takes it.
            transformer_in_features: the features that go through the encoder.
            transformer_num_points: samples a head and level.
            common_stride: stride of the pixel feature.
            ms_deform_attn: entry of MS_DEFORM_ATTN_REGISTRY, or "auto".
            use_checkpoint: keep only the inputs of each encoder layer for backward.
            half_inference: follow autocast outside of training; else it is always off in here.
        """
        super().__init__()
        names = sorted(input_shape, key=lambda name: input_shape[name].stride)
        # From low to high resolution, as the encoder and the top-down path run.
        self.encoder_features = [name for name in names if name in transformer_in_features][::-1]
        self.input_proj = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(input_shape[name].channels, conv_dim, kernel_size=1),
                nn.GroupNorm(32, conv_dim),
            )
            for name in self.encoder_features
        )
        for projection, _ in self.input_proj:
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

        self.half_inference = half_inference
        num_levels = len(self.encoder_features)
        self.transformer = DeformableEncoder(
            [
                DeformableEncoderLayer(
                    MSDeformAttn(
                        conv_dim,
                        num_levels,
                        transformer_nheads,
                        transformer_num_points,
                        ms_deform_attn,
                    ),
                    conv_dim,
                    transformer_dim_feedforward,
                    transformer_dropout,
                )
                for _ in range(transformer_enc_layers)
            ],
            conv_dim,
            num_levels,
        )
        if use_checkpoint:
            recompute_in_backward(self.transformer.encoder["layers"])

        finest_stride = input_shape[self.encoder_features[-1]].stride
        num_top_down = int(math.log2(finest_stride) - math.log2(common_stride))
        self.top_down_features = names[:num_top_down][::-1]
        # Official keys: adapter_1 and layer_1 belong to the highest resolution.
        for index, name in enumerate(names[:num_top_down], start=1):
            lateral = Conv2d(
                input_shape[name].channels,
                conv_dim,
                kernel_size=1,
                bias=norm == "",
                norm=get_norm(norm, conv_dim),
            )
            output = Conv2d(
                conv_dim,
                conv_dim,
                kernel_size=3,
                padding=1,
                bias=norm == "",
                norm=get_norm(norm, conv_dim),
                activation=F.relu_,
            )
            c2_xavier_fill(lateral)
            c2_xavier_fill(output)
            self.add_module(f"adapter_{index}", lateral)
            self.add_module(f"layer_{index}", output)

        self.mask_features = Conv2d(conv_dim, mask_dim, kernel_size=1)
        c2_xavier_fill(self.mask_features)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        head = cfg.MODEL.SEM_SEG_HEAD
        num_heads = cfg.MODEL.MASK_FORMER.NHEADS  # of the encoder too, as in the official code
        if head.DEFORMABLE_TRANSFORMER_ENCODER_N_HEADS not in (8, num_heads):  # 8: left alone
            raise ValueError(
                "MODEL.SEM_SEG_HEAD.DEFORMABLE_TRANSFORMER_ENCODER_N_HEADS="
                f"{head.DEFORMABLE_TRANSFORMER_ENCODER_N_HEADS}, but the encoder has the "
                f"{num_heads} heads of MODEL.MASK_FORMER.NHEADS; set that one"
            )
        return {
            "input_shape": {k: v for k, v in input_shape.items() if k in head.IN_FEATURES},
            "transformer_dropout": cfg.MODEL.MASK_FORMER.DROPOUT,
            "transformer_nheads": num_heads,
            "transformer_dim_feedforward": 1024,  # fixed in the official code; no key tells it
            "transformer_enc_layers": head.TRANSFORMER_ENC_LAYERS,
            "conv_dim": head.CONVS_DIM,
            "mask_dim": head.MASK_DIM,
            "norm": head.NORM,
            "transformer_in_features": head.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES,
            "transformer_num_points": head.DEFORMABLE_TRANSFORMER_ENCODER_N_POINTS,
            "common_stride": head.COMMON_STRIDE,
            "ms_deform_attn": head.MS_DEFORM_ATTN,
            "use_checkpoint": head.USE_CHECKPOINT,
            "half_inference": cfg.TEST.AMP.ENABLED,
        }

    def forward_features(self, features: dict[str, Tensor]) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The pixel feature, the encoder's coarsest level, three levels from coarse to fine.

        Shapes: {name: (B,*,H,W)} -> (B,mask_dim,H,W), (B,C,H,W), 3 x (B,C,H,W)
        """
        precision = nullcontext()
        if self.training or not self.half_inference:
            # Officially so: sampling locations need more digits than half precision has. With
            # TEST.AMP it is their offsets alone that are rounded.
            precision = full_precision(features[self.encoder_features[0]].device.type)
            features = {name: feature.float() for name, feature in features.items()}
        with precision:
            pyramid = self.transformer(
                [
                    projection(features[name])
                    for projection, name in zip(self.input_proj, self.encoder_features)
                ]
            )
            num_top_down = len(self.top_down_features)
            for index, name in zip(range(num_top_down, 0, -1), self.top_down_features):
                lateral = getattr(self, f"adapter_{index}")(features[name])
                coarser = F.interpolate(
                    pyramid[-1], size=lateral.shape[-2:], mode="bilinear", align_corners=False
                )
                pyramid.append(getattr(self, f"layer_{index}")(lateral.add_(coarser)))
            return self.mask_features(pyramid[-1]), pyramid[0], pyramid[:NUM_OUTPUT_LEVELS]
