"""Reading weight files of every kind that users have, none of which may run code.

The reader and the tables of names are the embedded detectron2's, whichever detectron2 is in use:
the real one loads pickles that may run anything.
"""

import importlib.util
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
