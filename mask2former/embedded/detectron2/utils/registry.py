"""Names for classes and functions."""

import importlib
import pydoc
from typing import Any

from fvcore.common.registry import Registry

__all__ = ["Registry", "locate"]


def locate(name: str) -> Any:
    """The object of a dotted name such as "torch.nn.Linear".

    Raises:
        ImportError: there is none.
    """
    found = pydoc.locate(name)
    if found is None:
        found = _locate_in_hidden_module(name)
    if found is None:
        raise ImportError(f"no object named {name} can be imported; correct the name")
    return found


def _locate_in_hidden_module(name: str) -> Any:
    # torch.optim.sgd is a module that torch.optim has deleted from its attributes.
    module_name, _, attribute = name.rpartition(".")
    if not module_name:
        return None
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError:
        return None
    return getattr(module, attribute, None)


def _convert_target_to_string(target: Any) -> str:
    """The shortest dotted name under which `target` can be located."""
    packages = target.__module__.split(".")
    for depth in range(1, len(packages)):
        name = ".".join([*packages[:depth], target.__qualname__])
        try:
            if locate(name) is target:
                return name
        except ImportError:
            continue
    return f"{target.__module__}.{target.__qualname__}"
