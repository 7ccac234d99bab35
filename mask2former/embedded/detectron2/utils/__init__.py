"""Tools that know nothing of models or data."""

from detectron2 import _missing_attribute

__all__: list[str] = []

__getattr__ = _missing_attribute(__name__)
