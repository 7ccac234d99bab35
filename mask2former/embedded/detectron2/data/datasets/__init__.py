"""Loaders of common dataset layouts. Datasets are registered by those who define them."""

from detectron2 import _missing_attribute

from .coco import convert_to_coco_json, load_coco_json, load_sem_seg, register_coco_instances
from .coco_panoptic import register_coco_panoptic, register_coco_panoptic_separated

__all__ = [
    "convert_to_coco_json",
    "load_coco_json",
    "load_sem_seg",
    "register_coco_instances",
    "register_coco_panoptic",
    "register_coco_panoptic_separated",
]

__getattr__ = _missing_attribute(__name__)
