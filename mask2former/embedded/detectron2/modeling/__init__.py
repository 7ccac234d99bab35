"""Models, their parts and their registries."""

from detectron2 import _missing_attribute
from detectron2.layers import ShapeSpec

from .backbone import (
    BACKBONE_REGISTRY,
    Backbone,
    ResNet,
    ResNetBlockBase,
    build_backbone,
    build_resnet_backbone,
    make_stage,
)
from .meta_arch import (
    META_ARCH_REGISTRY,
    SEM_SEG_HEADS_REGISTRY,
    SemanticSegmentor,
    build_model,
    build_sem_seg_head,
)
from .postprocessing import detector_postprocess
from .test_time_augmentation import DatasetMapperTTA

__all__ = [
    "BACKBONE_REGISTRY",
    "META_ARCH_REGISTRY",
    "SEM_SEG_HEADS_REGISTRY",
    "Backbone",
    "DatasetMapperTTA",
    "ResNet",
    "ResNetBlockBase",
    "SemanticSegmentor",
    "ShapeSpec",
    "build_backbone",
    "build_model",
    "build_resnet_backbone",
    "build_sem_seg_head",
    "detector_postprocess",
    "make_stage",
]

__getattr__ = _missing_attribute(__name__)
