"""Config keys of this project, reading them from files and command lines, and checking them."""

from mask2former.config.files import flat_keys, get_config_file, load_config
from mask2former.config.keys import add_maskformer2_config
from mask2former.config.size_lists import read_size_lists
from mask2former.config.validation import predicted_classes, validate_config

__all__ = [
    "add_maskformer2_config",
    "flat_keys",
    "get_config_file",
    "load_config",
    "predicted_classes",
    "validate_config",
]

read_size_lists()
