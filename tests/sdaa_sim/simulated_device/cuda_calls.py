"""Make every call of torch.cuda from outside torch an error that names the call and the caller."""

import functools
import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterator
from types import FrameType, FunctionType, ModuleType

import torch


def forbid() -> None:
    """Guard the functions and the classes of torch.cuda and of its modules, once each."""
    for module in _modules():
        for name, value in list(vars(module).items()):
            origin = getattr(value, "__module__", None) or ""
            if name.startswith("__") or not f"{origin}.".startswith("torch.cuda."):
                continue
            if isinstance(value, FunctionType):
                setattr(module, name, _guarded(value, f"{module.__name__}.{name}"))
            elif _is_changeable(value) and "_guarded" not in vars(value):
                _guard_class(value, f"{module.__name__}.{name}")


def _modules() -> Iterator[ModuleType]:
    """torch.cuda and its modules: those that torch has imported, and amp, which is always used."""
    yield torch.cuda
    for info in pkgutil.iter_modules(torch.cuda.__path__, "torch.cuda."):
        if info.name in sys.modules:
            yield sys.modules[info.name]
    for name in ("autocast_mode", "grad_scaler", "common"):
        yield importlib.import_module(f"torch.cuda.amp.{name}")


def _is_changeable(value: object) -> bool:
    """Whether it is a class made in Python; torch.cuda.FloatTensor and the like are not."""
    immutable = 1 << 8  # Py_TPFLAGS_IMMUTABLETYPE
    return isinstance(value, type) and not value.__flags__ & immutable


def _check(name: str, frame: FrameType | None) -> None:
    """AssertionError unless a module of torch is the caller."""
    caller = frame.f_globals.get("__name__", "") if frame else ""
    if caller.partition(".")[0] != "torch":
        raise AssertionError(f"{name} called by {frame.f_code.co_filename}:{frame.f_lineno}")


def _guarded(function: Callable, name: str) -> Callable:
    @functools.wraps(function)
    def call(*args: object, **kwargs: object) -> object:
        _check(name, sys._getframe(1))
        return function(*args, **kwargs)

    return call


def _guard_class(kind: type, name: str) -> None:
    """Guard the construction, in place: a class imported by name is guarded as well."""
    if "__new__" in vars(kind):
        kind.__new__ = staticmethod(_guarded(kind.__new__, name))
    else:
        kind.__init__ = _guarded(kind.__init__, name)
    kind._guarded = True
