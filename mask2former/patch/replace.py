"""Replacing names in modules that others have written: all of them or none, and only once."""

import functools
import importlib
import logging
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Replacement:
    """What is to stand for a name.

    Args:
        module: the module that defines it.
        name: an attribute of the module, or "Class.method".
        new: stands for it.
        around: `new` is called with the original before all other arguments.
    """

    module: str
    name: str
    new: Any
    around: bool = False


def replace(replacements: Iterable[Replacement], reason: str, advice: str) -> None:
    """Replace all names, those of functions also where other modules hold them.

    What has been replaced already is left alone.

    Args:
        reason: is logged of each name: "MODULE.NAME REASON".
        advice: what to do about a name that is not there, for the error.

    Raises:
        ImportError: there is no such name; then nothing has been replaced.
    """
    found = [(r, *_find(r, advice)) for r in replacements]
    for replacement, owner, original in found:
        if getattr(original, "_replaced_by", None) is replacement or original is replacement.new:
            continue
        new = _around(original, replacement) if replacement.around else replacement.new
        # A module, or a method, is replaced where it was named only.
        if isinstance(original, ModuleType) or not isinstance(owner, ModuleType):
            setattr(owner, replacement.name.rpartition(".")[2], new)
        else:
            replace_everywhere(original, new)
        logger.debug("%s.%s %s", replacement.module, replacement.name, reason)


def _find(replacement: Replacement, advice: str) -> tuple[Any, Any]:
    """Whose attribute it is, and what it is."""
    try:
        value: Any = importlib.import_module(replacement.module)
        for part in replacement.name.split("."):
            # Not getattr: a module may answer it for what it has not.
            owner, value = value, vars(value)[part]
    except (ModuleNotFoundError, KeyError) as error:
        missing = getattr(error, "name", None)  # a module that it imports, rather than itself?
        if missing and not f"{replacement.module}.".startswith(f"{missing}."):
            raise
        raise ImportError(
            f"there is no {replacement.module}.{replacement.name}; {advice}"
        ) from error
    return owner, value


def _around(original: Callable, replacement: Replacement) -> Callable:
    @functools.wraps(original)
    def new(*args, **kwargs) -> Any:
        return replacement.new(original, *args, **kwargs)

    new._replaced_by = replacement
    return new


def replace_everywhere(original: Callable, new: Callable) -> None:
    """Put `new` for `original` in every loaded module: each that imported it holds it by itself."""
    # Of plain modules only: others may load something when they are looked at.
    modules = [m for m in list(sys.modules.values()) if type(m) is ModuleType]
    for module in modules:
        for name in [name for name, value in vars(module).items() if value is original]:
            setattr(module, name, new)
