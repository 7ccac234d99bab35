"""DeepLab's config keys, learning rate and backbone (not its heads)."""

from detectron2 import _missing_attribute

from .build_solver import build_lr_scheduler
from .config import add_deeplab_config
from .resnet import build_resnet_deeplab_backbone

__all__ = ["add_deeplab_config", "build_lr_scheduler", "build_resnet_deeplab_backbone"]

__getattr__ = _missing_attribute(__name__)
