"""What a backbone is."""

from abc import ABCMeta, abstractmethod

from torch import Tensor, nn

from detectron2.layers import ShapeSpec


class Backbone(nn.Module, metaclass=ABCMeta):
    """Image in, named feature maps out.

    A subclass sets `_out_features` (names), `_out_feature_channels` and `_out_feature_strides`
    (name -> number), or overrides `output_shape`.
    """

    @abstractmethod
    def forward(self, x: Tensor) -> dict[str, Tensor]:  # (B,3,H,W) -> {name: (B,C,H/s,W/s)}
        """Feature maps by name."""

    @property
    def size_divisibility(self) -> int:
        """What height and width of the input must be multiples of; 0 for any size."""
        return 0

    @property
    def padding_constraints(self) -> dict[str, int]:
        """Demands on padding: "size_divisibility", and "square_size" for a square input."""
        return {}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each feature map that `forward` returns."""
        return {
            name: ShapeSpec(
                channels=self._out_feature_channels[name], stride=self._out_feature_strides[name]
            )
            for name in self._out_features
        }
