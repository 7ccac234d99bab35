"""Datasets, and what turns their files into the model's inputs."""

from mask2former.data import datasets  # noqa: F401
from mask2former.data.dataset_mapper import MaskFormerDatasetMapper, build_mapper
from mask2former.data.loader import build_test_loader, build_train_loader

__all__ = ["MaskFormerDatasetMapper", "build_mapper", "build_test_loader", "build_train_loader"]
