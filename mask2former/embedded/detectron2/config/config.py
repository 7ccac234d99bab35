"""`CfgNode`, the default and the global config, and `configurable`."""

import functools
import inspect
import os
from collections.abc import Callable
from typing import IO, Any

import yaml
from fvcore.common.config import CfgNode as _CfgNode

from detectron2.utils.file_io import PathManager


class CfgNode(_CfgNode):
    """A tree of config keys: dict and attribute access, `_BASE_` chains, merging with type checks.

    Config files are plain data here: a python tag is refused whatever `allow_unsafe` says.
    """

    @classmethod
    def _open_cfg(cls, filename: str) -> IO[str]:
        return PathManager.open(filename, "r")

    @classmethod
    def load_yaml_with_base(cls, filename: str, allow_unsafe: bool = False) -> dict:
        """The mapping in a YAML file over that of its `_BASE_` files.

        Raises:
            ValueError: the file, or one it stands on, is no YAML mapping of plain values.
        """
        try:
            loaded = super().load_yaml_with_base(filename, allow_unsafe=False)
        except yaml.constructor.ConstructorError as error:
            raise ValueError(
                f"{filename}, line {error.problem_mark.line + 1}: {error.problem}; configs are "
                "plain data, because a tag could run code: write the value itself"
            ) from error
        if not isinstance(loaded, dict):
            raise ValueError(f"{filename}: a config is a mapping of keys to values")
        return loaded

    def merge_from_file(self, cfg_filename: str, allow_unsafe: bool = True) -> None:
        """Override values with those of a YAML file and of its `_BASE_` files.

        Args:
            allow_unsafe: accepted for compatibility; files are always read as plain data.

        Raises:
            FileNotFoundError: no such file.
            ValueError: it is no YAML mapping of plain values, it is of another config version, or
                a value has another type than its default.
            KeyError: a key has no default.
        """
        if "://" not in cfg_filename and not os.path.isfile(cfg_filename):
            raise FileNotFoundError(f"{cfg_filename}: no such config file; correct the path")
        loaded = type(self)(self.load_yaml_with_base(cfg_filename))
        version = loaded.get("VERSION", self.VERSION)
        if version != self.VERSION:
            raise ValueError(
                f"{cfg_filename}: VERSION is {version}, but only version {self.VERSION} of "
                "detectron2's config can be read; convert the file"
            )
        self.merge_from_other_cfg(loaded)

    def dump(self, *args, **kwargs) -> str:
        """The config as YAML."""
        return super().dump(*args, **kwargs)


global_cfg = CfgNode()


def get_cfg() -> CfgNode:
    """A copy of the default config."""
    from .defaults import _C  # it is made of CfgNode

    return _C.clone()


def set_global_cfg(cfg: CfgNode) -> None:
    """Make `global_cfg`, wherever it was imported, hold the values of `cfg`."""
    global_cfg.clear()
    global_cfg.update(cfg)


def configurable(
    init_func: Callable | None = None, *, from_config: Callable | None = None
) -> Callable:
    """Let something with explicit arguments be called with a config instead.

    Decorate `__init__` of a class that has a classmethod `from_config(cfg, ...)`, or a function, as
    `@configurable(from_config=...)`. `from_config` maps a config, and what else it names, to a dict
    of explicit arguments. A call whose first or `cfg` argument is a config goes through it;
    arguments that `from_config` does not take are handed on as they are.

    Raises:
        TypeError: used on something else, or there is no such `from_config`.
    """
    if init_func is not None:
        if not inspect.isfunction(init_func) or init_func.__name__ != "__init__" or from_config:
            raise TypeError(
                "@configurable stands on __init__; a function takes @configurable(from_config=...)"
            )
        return _configurable_init(init_func)
    if from_config is None:
        return configurable
    if not inspect.isfunction(from_config):
        raise TypeError(f"from_config is to be a function, not {from_config!r}")

    def decorate(function: Callable) -> Callable:
        @functools.wraps(function)
        def wrapped(*args, **kwargs) -> Any:
            if _has_config(args, kwargs):
                return function(**_explicit_arguments(from_config, args, kwargs))
            return function(*args, **kwargs)

        wrapped.from_config = from_config
        return wrapped

    return decorate


def _configurable_init(init_func: Callable) -> Callable:
    @functools.wraps(init_func)
    def wrapped(self: object, *args, **kwargs) -> None:
        make_arguments = getattr(type(self), "from_config", None)
        if not inspect.ismethod(make_arguments):
            raise TypeError(
                f"{type(self).__name__} has a @configurable __init__, but no classmethod "
                "from_config; add it"
            )
        if _has_config(args, kwargs):
            init_func(self, **_explicit_arguments(make_arguments, args, kwargs))
        else:
            init_func(self, *args, **kwargs)

    return wrapped


def _has_config(args: tuple, kwargs: dict) -> bool:
    return (bool(args) and isinstance(args[0], _CfgNode)) or isinstance(kwargs.get("cfg"), _CfgNode)


def _explicit_arguments(from_config: Callable, args: tuple, kwargs: dict) -> dict:
    parameters = inspect.signature(from_config).parameters
    if next(iter(parameters), None) != "cfg":
        raise TypeError(f"{from_config.__qualname__} has to take cfg as its first argument")
    kinds = {p.kind for p in parameters.values()}
    if kinds & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}:
        return from_config(*args, **kwargs)
    known = {name: value for name, value in kwargs.items() if name in parameters}
    others = {name: value for name, value in kwargs.items() if name not in parameters}
    return {**from_config(*args, **known), **others}
