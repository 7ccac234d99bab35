"""Reading weight files of every kind that users have, none of which may run code.

The reader and the tables of names are the embedded detectron2's, whichever detectron2 is in use:
the real one loads pickles that may run anything.
"""

import importlib.util
import pickle
from pathlib import Path
from types import ModuleType
from typing import Any

from mask2former._provider import EMBEDDED


def _embedded_module(name: str) -> ModuleType:
    """Of embedded/detectron2/checkpoint, by its file: `import` may find the real one instead."""
    path = Path(EMBEDDED) / "detectron2" / "checkpoint" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"{__package__}.{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


load_plain = _embedded_module("safe_load").load_plain
weight_names = _embedded_module("weight_names")
as_checkpoint, endings = weight_names.as_checkpoint, weight_names.endings
HEURISTICS = weight_names.HEURISTICS


def read_weights(path: str) -> dict[str, Any]:
    """The contents of a .pth, .pkl or .pyth file as DetectionCheckpointer wants them.

    Returns:
        a dict with "model", names to tensors or arrays, and what else the file holds; with
        "matching_heuristics" if the names are those of a bare backbone.

    Raises:
        ValueError: the file is not whole, is no weight file, or holds objects other than tensors,
            arrays and plain containers, which could run code.
    """
    return as_checkpoint(load_plain(path), path)


def convert_backbone(source: str, target: str, author: str) -> None:
    """Write a published backbone as detectron2's model zoo does, so that any detectron2 loads it.

    Args:
        source: .pth file with the names of its authors.
        target: .pkl file to write.
        author: whose names to expect: "torchvision" or "Swin-Transformer".

    Raises:
        FileNotFoundError, ValueError: as `read_weights`; or the names are not the author's, or
            `target` is not named .pkl.
    """
    if not target.endswith(".pkl"):
        raise ValueError(f"{target}: detectron2 knows the format by its name; name it *.pkl")
    data = read_weights(source)
    if data.get("__author__") != author:
        raise ValueError(f"{source}: its names are not those of {author}'s backbones; give another")
    arrays = {name: value.numpy() for name, value in data["model"].items()}
    with open(target, "wb") as file:
        pickle.dump({**data, "model": arrays}, file)
