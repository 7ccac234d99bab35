"""Saving and loading models, in every format that detectron2 loads."""

from fvcore.common.checkpoint import Checkpointer, PeriodicCheckpointer

from detectron2 import _missing_attribute

from .detection_checkpoint import DetectionCheckpointer

__all__ = ["Checkpointer", "DetectionCheckpointer", "PeriodicCheckpointer"]

__getattr__ = _missing_attribute(__name__)
