"""Loaders of common dataset layouts. Datasets are registered by those who define them."""

from detectron2 import _missing_attribute

from .coco import load_sem_seg

__all__ = ["load_sem_seg"]

__getattr__ = _missing_attribute(__name__)
