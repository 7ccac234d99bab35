"""Reading weight files of every kind that users have, none of which may run code."""

import pickle
import re
from collections.abc import Mapping
from typing import Any, BinaryIO

import torch

# What pickles of numpy arrays and plain containers need; `find_class` refuses all else.
_NUMPY = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray", "numpy._core.numeric")
_ADMITTED = {(module, name) for module in _NUMPY for name in ("ndarray", "dtype", "scalar")}
_ADMITTED |= {(module, "_reconstruct") for module in _NUMPY}
_ADMITTED |= {(module, "_frombuffer") for module in _NUMPY}
_ADMITTED |= {("collections", "OrderedDict"), ("_codecs", "encode")}
_ADMITTED |= {
    (module, name)
    for module in ("builtins", "__builtin__")
    for name in ("set", "frozenset", "bytearray", "complex", "slice", "range")
}

# torchvision's names of ResNet parts -> detectron2's
_TORCHVISION = (
    (re.compile(r"^(conv1|bn1)\."), r"stem.\1."),
    (re.compile(r"^layer(\d)"), lambda match: f"res{int(match[1]) + 1}"),
    (re.compile(r"\bbn(\d)\."), r"conv\1.norm."),
    (re.compile(r"\bdownsample\.0\."), "shortcut."),
    (re.compile(r"\bdownsample\.1\."), "shortcut.norm."),
)


class _ForbiddenClass(pickle.UnpicklingError):
    pass


class _PlainUnpickler(pickle.Unpickler):
    """Admits arrays and plain containers."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise _ForbiddenClass(f"{module}.{name}")
        return super().find_class(module, name)


def read_weights(path: str) -> dict[str, Any]:
    """The contents of a .pth, .pkl or .pyth file as DetectionCheckpointer wants them.

    Returns:
        a dict with "model": names to tensors or arrays, and what else the file holds; with
        "matching_heuristics" if the names are those of a bare backbone.

    Raises:
        ValueError: the file is not whole, is no weight file, or holds objects other than tensors,
            arrays and plain containers, which could run code.
    """
    data = _read_pickle(path) if path.endswith(".pkl") else _read_torch(path)
    if not isinstance(data, Mapping) or not data:
        raise ValueError(f"{path}: holds a {type(data).__name__}, not a dict of weights")
    if "model_state" in data:  # pycls
        data = {"model": data["model_state"], "__author__": "pycls", "matching_heuristics": True}
    elif "model" not in data and path.endswith(".pkl"):
        blobs = data.get("blobs", data)
        weights = {name: x for name, x in blobs.items() if not name.endswith("_momentum")}
        data = {"model": weights, "__author__": "Caffe2", "matching_heuristics": True}
    elif "model" not in data:
        data = {"model": data}
    if "layer1.0.conv1.weight" in data["model"]:
        weights = {_detectron2_name(name): x for name, x in data["model"].items()}
        data = {"model": weights, "__author__": "torchvision", "matching_heuristics": True}
    return dict(data)


def _read_pickle(path: str) -> Any:
    with open(path, "rb") as file:
        try:
            return _unpickle(file)
        except _ForbiddenClass as error:
            raise ValueError(_forbidden(path, str(error))) from error
        except (pickle.UnpicklingError, EOFError, UnicodeDecodeError, KeyError) as error:
            raise ValueError(_not_whole(path, error)) from error


def _unpickle(file: BinaryIO) -> Any:
    return _PlainUnpickler(file, encoding="latin1").load()  # as Caffe2's files, of Python 2, need


def _read_torch(path: str) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        name = re.search(r"(?:GLOBAL|class|function|load) `?'?([\w.]+\.[\w.]+)", str(error))
        if name is None:
            raise ValueError(_not_whole(path, error)) from error
        raise ValueError(_forbidden(path, name[1])) from error
    except (RuntimeError, EOFError) as error:
        raise ValueError(_not_whole(path, error)) from error


def _forbidden(path: str, name: str) -> str:
    return (
        f"{path}: asks for {name}, which could run code, so nothing of it was loaded; weight files "
        "hold tensors, arrays and plain containers only: get it from a source you trust, or save "
        "its state_dict anew"
    )


def _not_whole(path: str, error: Exception) -> str:
    reason = str(error).split("\n", 1)[0].strip() or type(error).__name__
    return f"{path}: truncated, or no weight file ({reason}); copy or download it again"


def _detectron2_name(name: str) -> str:
    for pattern, replacement in _TORCHVISION:
        name = pattern.sub(replacement, name)
    return name
