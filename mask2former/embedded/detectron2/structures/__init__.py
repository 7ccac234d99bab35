"""Boxes, masks, batched images and the container that holds what belongs to one image."""

from detectron2 import _missing_attribute

from .boxes import Boxes, BoxMode, pairwise_ioa, pairwise_iou
from .image_list import ImageList
from .instances import Instances
from .masks import BitMasks, PolygonMasks, ROIMasks, polygons_to_bitmask

__all__ = [
    "BitMasks",
    "BoxMode",
    "Boxes",
    "ImageList",
    "Instances",
    "PolygonMasks",
    "ROIMasks",
    "pairwise_ioa",
    "pairwise_iou",
    "polygons_to_bitmask",
]

__getattr__ = _missing_attribute(__name__)
