"""Configs: nodes of keys and values, the defaults, and classes that are built from a config."""

from detectron2 import _missing_attribute

from .config import CfgNode, configurable, get_cfg, global_cfg, set_global_cfg

__all__ = ["CfgNode", "configurable", "get_cfg", "global_cfg", "set_global_cfg"]

__getattr__ = _missing_attribute(__name__)
