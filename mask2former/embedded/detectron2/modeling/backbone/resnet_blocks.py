"""The parts of a ResNet (He et al. 2016): stem and residual blocks.

Legend: B batch, C channels, H W height and width.
"""

from collections.abc import Callable

from fvcore.nn.weight_init import c2_msra_fill
from torch import Tensor, nn
from torch.nn import functional as F

from detectron2.layers import CNNBlockBase, Conv2d, get_norm

Norm = str | Callable[[int], nn.Module]


def conv_norm(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    norm: Norm,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    relu: bool = False,
) -> Conv2d:
    """A bias-free convolution, padded to keep the size, with norm, initialised for ReLU."""
    conv = Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        padding=dilation * (kernel_size // 2),
        dilation=dilation,
        groups=groups,
        bias=False,
        norm=get_norm(norm, out_channels),
        activation=F.relu_ if relu else None,
    )
    c2_msra_fill(conv)
    return conv


class BasicStem(CNNBlockBase):
    """A 7x7 convolution and a max pooling, together of stride 4."""

    def __init__(self, in_channels: int = 3, out_channels: int = 64, norm: Norm = "BN"):
        super().__init__(in_channels, out_channels, 4)
        self.conv1 = conv_norm(in_channels, out_channels, 7, norm, stride=2, relu=True)

    def forward(self, x: Tensor) -> Tensor:  # (B,3,H,W) -> (B,C,H/4,W/4)
        return F.max_pool2d(self.conv1(x), kernel_size=3, stride=2, padding=1)


class _ResidualBlock(CNNBlockBase):
    """relu(residual(x) + shortcut(x)); the shortcut is a 1x1 convolution if channels change."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, norm: Norm):
        super().__init__(in_channels, out_channels, stride)
        self.shortcut = (
            conv_norm(in_channels, out_channels, 1, norm, stride=stride)
            if in_channels != out_channels
            else None
        )

    def forward(self, x: Tensor) -> Tensor:  # (B,C,H,W) -> (B,C',H/stride,W/stride)
        shortcut = x if self.shortcut is None else self.shortcut(x)
        y = self.residual(x)
        y += shortcut
        return F.relu_(y)


class BasicBlock(_ResidualBlock):
    """Two 3x3 convolutions (ResNet 18 and 34)."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, norm: Norm = "BN"):
        super().__init__(in_channels, out_channels, stride, norm)
        self.conv1 = conv_norm(in_channels, out_channels, 3, norm, stride=stride, relu=True)
        self.conv2 = conv_norm(out_channels, out_channels, 3, norm)

    def residual(self, x: Tensor) -> Tensor:  # (B,C,H,W) -> (B,C',H/stride,W/stride)
        return self.conv2(self.conv1(x))


class BottleneckBlock(_ResidualBlock):
    """1x1 down to `bottleneck_channels`, 3x3, 1x1 up to `out_channels` (ResNet 50 and deeper).

    The stride lies in the 3x3, as in torchvision, or in the first 1x1, as in the original and in
    Caffe2's weights (`stride_in_1x1`). `num_groups` and `dilation` belong to the 3x3.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        bottleneck_channels: int,
        stride: int = 1,
        num_groups: int = 1,
        norm: Norm = "BN",
        stride_in_1x1: bool = False,
        dilation: int = 1,
    ):
        super().__init__(in_channels, out_channels, stride, norm)
        width = bottleneck_channels
        stride_1x1, stride_3x3 = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = conv_norm(in_channels, width, 1, norm, stride=stride_1x1, relu=True)
        self.conv2 = conv_norm(
            width,
            width,
            3,
            norm,
            stride=stride_3x3,
            dilation=dilation,
            groups=num_groups,
            relu=True,
        )
        self.conv3 = conv_norm(width, out_channels, 1, norm)

    def residual(self, x: Tensor) -> Tensor:  # (B,C,H,W) -> (B,C',H/stride,W/stride)
        return self.conv3(self.conv2(self.conv1(x)))
