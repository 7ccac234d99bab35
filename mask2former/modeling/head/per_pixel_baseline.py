"""The paper's baselines: one class for each pixel (MaskFormer, sec. 4.1 and 4.3).

They are heads of detectron2's meta-architecture SemanticSegmentor. B batch, K classes, H W the
padded batch, h w the grid of the pixel feature.
"""

import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from fvcore.nn.weight_init import c2_msra_fill
from torch import Tensor, nn

from mask2former.device import full_precision
from mask2former.modeling.head.decoders import (
    WithPixelDecoder,
    decoder_inputs,
    transformer_in_channels,
)
from mask2former.modeling.pixel_decoder.build import build_pixel_decoder
from mask2former.modeling.transformer_decoder.maskformer import StandardTransformerDecoder


def per_pixel_loss(logits: Tensor, targets: Tensor, ignore_value: int) -> Tensor:
    """Mean cross-entropy over the pixels that are not ignored; 0 if there are none.

    Shapes: (B,K,H,W), (B,H,W) int64 -> ()
    """
    loss = F.cross_entropy(logits, targets, ignore_index=ignore_value, reduction="sum")
    return loss / (targets != ignore_value).sum().clamp(min=1)


@SEM_SEG_HEADS_REGISTRY.register()
class PerPixelBaselineHead(WithPixelDecoder):
    """PerPixelBaseline: a 1x1 convolution makes classes of the pixel feature."""

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        pixel_decoder: nn.Module,
        predictor: nn.Module,
        loss_weight: float = 1.0,
        ignore_value: int = -1,
    ):
        """
        Args:
            input_shape: channels and stride of each backbone feature.
            predictor: from the pixel feature to logits, see `predict`.
            ignore_value: of pixels that have no class.
        """
        super().__init__()
        self.pixel_decoder = pixel_decoder
        self.predictor = predictor
        self.loss_weight = loss_weight
        self.ignore_value = ignore_value
        self.finest = min(input_shape, key=lambda name: input_shape[name].stride)
        self.finest_stride = input_shape[self.finest].stride

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        head = cfg.MODEL.SEM_SEG_HEAD
        pixel_decoder = build_pixel_decoder(cfg, input_shape)
        return {
            "input_shape": {k: v for k, v in input_shape.items() if k in head.IN_FEATURES},
            "pixel_decoder": pixel_decoder,
            "predictor": cls.build_predictor(cfg, input_shape, pixel_decoder),
            "loss_weight": head.LOSS_WEIGHT,
            "ignore_value": head.IGNORE_VALUE,
        }

    @classmethod
    def build_predictor(
        cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec], pixel_decoder: nn.Module
    ) -> nn.Module:
        head = cfg.MODEL.SEM_SEG_HEAD
        predictor = Conv2d(head.MASK_DIM, head.NUM_CLASSES, kernel_size=1)
        c2_msra_fill(predictor)
        return predictor

    def predict(self, features: dict[str, Tensor]) -> list[Tensor]:
        """Logits (B,K,h,w) of the last layer; in training also of each other supervised one."""
        pixel_feature, _, _ = self.pixel_decoder.forward_features(features)
        return [self.predictor(pixel_feature)]

    def forward(
        self, features: dict[str, Tensor], targets: Tensor | None = None
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """As SemanticSegmentor calls it.

        Args:
            targets: (B,H,W) int64, in training.
        Returns:
            in training None and the weighted losses: loss_sem_seg, with the suffix _i those of
            earlier layers; else logits (B,K,H,W), H and W up to the next multiple of the finest
            feature's stride, and no losses.
        """
        height, width = features[self.finest].shape[-2:]
        size = height * self.finest_stride, width * self.finest_stride
        last, *earlier = self.predict(features)
        if not self.training:
            return upsample(last, size), {}
        suffixes = ["", *(f"_{i}" for i in range(len(earlier)))]
        losses = {}
        with full_precision(last.device.type):
            for suffix, logits in zip(suffixes, (last, *earlier)):
                logits = upsample(logits.float(), size)[
                    ..., : targets.shape[-2], : targets.shape[-1]
                ]
                loss = per_pixel_loss(logits, targets, self.ignore_value)
                losses[f"loss_sem_seg{suffix}"] = self.loss_weight * loss
        return None, losses


@SEM_SEG_HEADS_REGISTRY.register()
class PerPixelBaselinePlusHead(PerPixelBaselineHead):
    """PerPixelBaseline+: MaskFormer's decoder with a query for each class, whose mask is its."""

    @configurable
    def __init__(
        self, input_shape: dict[str, ShapeSpec], *, transformer_in_feature: str, **arguments: object
    ):
        """
        Args:
            transformer_in_feature: what the transformer decoder looks at; see `decoder_inputs`.
            arguments: see PerPixelBaselineHead.
        """
        super().__init__(input_shape, **arguments)
        self.transformer_in_feature = transformer_in_feature

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        num_queries = cfg.MODEL.MASK_FORMER.NUM_OBJECT_QUERIES
        num_classes = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
        if num_queries != num_classes:
            raise ValueError(
                f"MODEL.MASK_FORMER.NUM_OBJECT_QUERIES={num_queries}, but PerPixelBaselinePlusHead "
                f"has a query for each class; set it to {num_classes}"
            )
        return {
            **super().from_config(cfg, input_shape),
            "transformer_in_feature": cfg.MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE,
        }

    @classmethod
    def build_predictor(
        cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec], pixel_decoder: nn.Module
    ) -> nn.Module:
        # Whatever TRANSFORMER_DECODER_NAME says, as officially: no other predicts masks alone.
        in_channels = transformer_in_channels(cfg, input_shape, pixel_decoder)
        return StandardTransformerDecoder(cfg, in_channels, mask_classification=False)

    def predict(self, features: dict[str, Tensor]) -> list[Tensor]:
        feature, pixel_feature = decoder_inputs(
            self.transformer_in_feature, features, self.pixel_decoder
        )
        outputs = self.predictor(feature, pixel_feature)
        supervised = (outputs, *outputs["aux_outputs"]) if self.training else (outputs,)
        return [layer["pred_masks"] for layer in supervised]


def upsample(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Shapes: (B,K,h,w) -> (B,K,*size)"""
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
