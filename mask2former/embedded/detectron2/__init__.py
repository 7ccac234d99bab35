"""The part of detectron2's public API that mask2former stands on, for machines without detectron2.

It honours the real signatures, registry names, config keys, checkpoint format and file layouts.
Whatever it lacks raises an ImportError that names the real project.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from types import ModuleType

__version__ = "0.6+embedded"
KNOWS_ALL_DEVICES = True  # the real one knows CUDA only, and says nothing of it

_HINT = (
    "{} is not in the embedded subset; "
    "pip install 'git+https://github.com/facebookresearch/detectron2'"
)


def _missing_attribute(package: str) -> Callable[[str], ModuleType]:
    """A module-level `__getattr__` for a package or module that says what to install.

    Private and dunder names keep raising AttributeError: Python itself probes for them.
    """

    def __getattr__(name: str) -> ModuleType:
        if name.startswith("_"):
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        # `from package import module` asks for an attribute before it imports the module.
        path = vars(sys.modules[package]).get("__path__", [])  # a plain module has none
        if importlib.machinery.PathFinder.find_spec(f"{package}.{name}", path) is not None:
            return importlib.import_module(f"{package}.{name}")
        raise ImportError(_HINT.format(f"{package}.{name}"))

    return __getattr__


class _MissingModule(importlib.abc.MetaPathFinder):
    """Asked last, when no other finder knows a submodule."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> None:
        if fullname.startswith("detectron2."):
            raise ModuleNotFoundError(_HINT.format(fullname), name=fullname)
        return None


sys.meta_path.append(_MissingModule())
