"""Reading weight files of every kind that users have, none of which may run code.

The reader and the tables of names are the embedded detectron2's, whichever detectron2 is in use:
the real one loads pickles that may run anything.
"""

import importlib.util
from collections.abc import Mapping
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
names = _embedded_module("weight_names")


def read_weights(path: str) -> dict[str, Any]:
    """The contents of a .pth, .pkl or .pyth file as DetectionCheckpointer wants them.

    Returns:
        a dict with "model", names to tensors or arrays, and what else the file holds; with
        "matching_heuristics" if the names are those of a bare backbone.

    Raises:
        ValueError: the file is not whole, is no weight file, or holds objects other than tensors,
            arrays and plain containers, which could run code.
    """
    data = dict(_named(load_plain(path), path))
    if "model" not in data and path.endswith(".pkl"):
        # Caffe2's: its detection models have "blobs", its classifiers are bare.
        blobs = _named(data.get("blobs", data), path)
        weights = {names.from_caffe2(k): v for k, v in blobs.items() if not k.endswith("_momentum")}
        return {"model": weights, "matching_heuristics": True}
    if "model_state" in data:  # pycls
        return {"model": _named(data["model_state"], path), "matching_heuristics": True}
    weights = _named(data.get("model", data), path)
    if names.is_torchvision_resnet(weights):
        weights = {names.from_torchvision(k): v for k, v in weights.items()}
        return {"model": weights, "matching_heuristics": True}
    return data if "model" in data else {"model": data}


def _named(value: Any, path: str) -> Mapping:
    if not isinstance(value, Mapping) or not value:
        raise ValueError(f"{path}: holds no named weights; set MODEL.WEIGHTS to another file")
    return value
