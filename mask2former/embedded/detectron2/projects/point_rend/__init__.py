"""PointRend's colour augmentation and point sampling (not its heads)."""

from detectron2 import _missing_attribute

from .color_augmentation import ColorAugSSDTransform

__all__ = ["ColorAugSSDTransform"]

__getattr__ = _missing_attribute(__name__)
