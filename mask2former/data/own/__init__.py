"""A user's own data, named by where it lies instead of registered by code (docs/own_data.md)."""

from mask2former.data.own.register import (
    derive_from_data,
    load_own_dataset,
    register_from_config,
    register_own_datasets,
)
from mask2former.data.own.spelling import is_own

__all__ = [
    "derive_from_data",
    "is_own",
    "load_own_dataset",
    "register_from_config",
    "register_own_datasets",
]
