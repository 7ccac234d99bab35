"""The parts of detectron2's projects that other code builds on."""

from detectron2 import _missing_attribute

__getattr__ = _missing_attribute(__name__)
