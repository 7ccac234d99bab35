"""Reading pickled and torch files that may come from anywhere: nothing in them can run code."""

import io
import pickle
import re
import struct
from typing import Any, BinaryIO

import torch

# Where numpy 1 and numpy 2 keep what their pickles ask for.
_NUMPY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMPY_NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")

_ADMITTED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    *((module, name) for module in _NUMPY_MODULES for name in ("_reconstruct", "scalar")),
    *((module, "_frombuffer") for module in _NUMPY_NUMERIC),
    ("_codecs", "encode"),  # bytes of array elements, up to pickle protocol 2
    ("collections", "OrderedDict"),
    *((module, name) for module in ("builtins", "__builtin__") for name in ("set", "frozenset")),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
}

# What reading the bytes of a damaged file has been seen to raise; hence no more than "damaged".
_DAMAGED = (
    pickle.UnpicklingError,
    struct.error,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


class _UnsafeContentError(ValueError):
    """The file asks for something that is neither array nor plain container."""


class _PlainUnpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="latin1")  # Caffe2's files were written by Python 2

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch.storage", "_load_from_bytes"):
            return lambda data: _load_torch(io.BytesIO(data))  # torch's own unpickles anything
        if (module, name) not in _ADMITTED:
            raise _UnsafeContentError(f"{module}.{name}")
        return super().find_class(module, name)


def _load_torch(file: BinaryIO) -> Any:
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL (\w\S*)", str(error))  # in a message of many lines
        if refused is None:
            raise
        raise _UnsafeContentError(refused[1]) from error


def load_plain(path: str) -> Any:
    """The contents of a local file: a pickle if it is named .pkl, else one of torch.save.

    Raises:
        ValueError: the file is damaged or of another kind, or holds something else than tensors,
            arrays, numbers, strings and plain containers.
    """
    with open(path, "rb") as file:
        try:
            return _PlainUnpickler(file).load() if path.endswith(".pkl") else _load_torch(file)
        except _UnsafeContentError as error:
            raise ValueError(
                f"{path}: asks for {error}, which could run code, so nothing of it was loaded; "
                "only tensors, arrays and plain containers are: save its weights anew as a "
                "state_dict"
            ) from error
        except _DAMAGED as error:
            # Of torch's texts the first sentence; the rest advises to load without care.
            reason = str(error).strip().partition("\n")[0].partition(". ")[0].rstrip(".")
            reason = reason or type(error).__name__
            raise ValueError(
                f"{path}: truncated, or no file of weights ({reason}); copy or download it again"
            ) from error
