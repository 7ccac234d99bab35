"""DeepLab's ResNet: a stem of 3x3 convolutions, dilated stages and a multi-grid res5.

Legend: B batch, C channels, H W height and width.
"""

from torch import Tensor
from torch.nn import functional as F

from detectron2.config import CfgNode
from detectron2.layers import CNNBlockBase, ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone.resnet import BasicStem, ResNet, build_stages
from detectron2.modeling.backbone.resnet_blocks import Norm, conv_norm


class DeepLabStem(CNNBlockBase):
    """Three 3x3 convolutions (the first of stride 2) and a max pooling, together of stride 4."""

    def __init__(self, in_channels: int = 3, out_channels: int = 128, norm: Norm = "BN"):
        super().__init__(in_channels, out_channels, 4)
        half = out_channels // 2
        self.conv1 = conv_norm(in_channels, half, 3, norm, stride=2, relu=True)
        self.conv2 = conv_norm(half, half, 3, norm, relu=True)
        self.conv3 = conv_norm(half, out_channels, 3, norm, relu=True)

    def forward(self, x: Tensor) -> Tensor:  # (B,3,H,W) -> (B,C,H/4,W/4)
        x = self.conv3(self.conv2(self.conv1(x)))
        return F.max_pool2d(x, kernel_size=3, stride=2, padding=1)


_STEMS = {"basic": BasicStem, "deeplab": DeepLabStem}

# RES4_DILATION -> what RES5_DILATION may then be: a stage never dilates less than the one before
_RES5_DILATIONS = {1: (1, 2, 4), 2: (4,)}


@BACKBONE_REGISTRY.register()
def build_resnet_deeplab_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> ResNet:
    """The ResNet of MODEL.RESNETS with DeepLab's keys, frozen up to MODEL.BACKBONE.FREEZE_AT.

    Raises:
        ValueError: the keys ask for what this network cannot have.
    """
    node = cfg.MODEL.RESNETS
    choices = {
        "DEPTH": (50, 101, 152),
        "STEM_TYPE": tuple(_STEMS),
        "RES4_DILATION": tuple(_RES5_DILATIONS),
        "RES5_DILATION": _RES5_DILATIONS.get(node.RES4_DILATION, ()),
    }
    for key, allowed in choices.items():
        if node[key] not in allowed:
            raise ValueError(
                f"MODEL.RESNETS.{key}={node[key]!r}; set it to {' or '.join(map(str, allowed))}"
            )
    if len(node.RES5_MULTI_GRID) != 3:
        raise ValueError(
            f"MODEL.RESNETS.RES5_MULTI_GRID={node.RES5_MULTI_GRID}; "
            "give three factors, one for each block of res5"
        )
    return ResNet(
        _STEMS[node.STEM_TYPE](input_shape.channels, node.STEM_OUT_CHANNELS, node.NORM),
        build_stages(cfg, {4: node.RES4_DILATION, 5: node.RES5_DILATION}, node.RES5_MULTI_GRID),
        out_features=node.OUT_FEATURES,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
    )
