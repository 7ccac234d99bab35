"""What a layer must know of its input's shape."""

from dataclasses import dataclass


@dataclass
class ShapeSpec:
    """Shape of a feature map; None means unknown.

    Attributes:
        channels: number of channels.
        height: rows.
        width: columns.
        stride: pixels of the input image per step on this map.
    """

    channels: int | None = None
    height: int | None = None
    width: int | None = None
    stride: int | None = None
