"""Catalogs, datasets, augmentations, mappers and loaders."""

from detectron2 import _missing_attribute

from . import transforms
from .catalog import DatasetCatalog, Metadata, MetadataCatalog

__all__ = ["DatasetCatalog", "Metadata", "MetadataCatalog", "transforms"]

__getattr__ = _missing_attribute(__name__)
