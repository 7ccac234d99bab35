"""Semantic segmentation as a backbone and a head.

Legend: B batch, K classes, H W height and width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.structures import ImageList
from detectron2.utils.registry import Registry

from ..backbone import Backbone, build_backbone
from ..postprocessing import sem_seg_postprocess
from .build import META_ARCH_REGISTRY

SEM_SEG_HEADS_REGISTRY = Registry("SEM_SEG_HEADS")
SEM_SEG_HEADS_REGISTRY.__doc__ = "Classes of (cfg, input_shape) from features to predictions."


def build_sem_seg_head(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> nn.Module:
    """The head that MODEL.SEM_SEG_HEAD.NAME names, for feature maps of these shapes."""
    return SEM_SEG_HEADS_REGISTRY.get(cfg.MODEL.SEM_SEG_HEAD.NAME)(cfg, input_shape)


@META_ARCH_REGISTRY.register()
class SemanticSegmentor(nn.Module):
    """A backbone, then a head called as `head(features, targets)`.

    The head returns (logits (B,K,H,W), losses) and has an `ignore_value` for padded targets.
    """

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        sem_seg_head: nn.Module,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ):
        super().__init__()
        self.backbone = backbone
        self.sem_seg_head = sem_seg_head
        for name, values in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        backbone = build_backbone(cfg)
        return {
            "backbone": backbone,
            "sem_seg_head": build_sem_seg_head(cfg, backbone.output_shape()),
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
        }

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Losses in training, else one {"sem_seg": (K,height,width)} an image.

        Args:
            batched_inputs: dicts with "image" (3,H,W); in training also "sem_seg" (H,W); else
                optionally "height" and "width", the size of the output.
        """
        images = [x["image"].to(self.device) for x in batched_inputs]
        images = [(image - self.pixel_mean) / self.pixel_std for image in images]
        images = self._batch(images, pad_value=0.0)
        targets = None
        if "sem_seg" in batched_inputs[0]:
            sem_seg = [x["sem_seg"].to(self.device) for x in batched_inputs]
            targets = self._batch(sem_seg, pad_value=self.sem_seg_head.ignore_value).tensor
        logits, losses = self.sem_seg_head(self.backbone(images.tensor), targets)
        if self.training:
            return losses
        outputs = []
        for image_logits, size, x in zip(logits, images.image_sizes, batched_inputs):
            height, width = x.get("height", size[0]), x.get("width", size[1])
            outputs.append({"sem_seg": sem_seg_postprocess(image_logits, size, height, width)})
        return outputs

    def _batch(self, tensors: list[Tensor], pad_value: float) -> ImageList:
        return ImageList.from_tensors(
            tensors,
            self.backbone.size_divisibility,
            pad_value,
            padding_constraints=self.backbone.padding_constraints,
        )
