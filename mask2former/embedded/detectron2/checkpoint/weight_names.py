"""From the weight files and names of other projects to those of the model at hand.

Stands on torch alone, so that others may use it beside any detectron2.
"""

import logging
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch

HEURISTICS = "matching_heuristics"  # key of a file whose names are those of a bare network

_C2_NORM = {
    "s": "weight",
    "gamma": "weight",
    "b": "bias",
    "bias": "bias",
    "beta": "bias",
    "rm": "running_mean",
    "running_mean": "running_mean",
    "riv": "running_var",
    "running_var": "running_var",
}
_C2_PARAMETER = {"w": "weight", "b": "bias"}
_C2_MODULE = {
    "branch1": "shortcut",
    "branch2a": "conv1",
    "branch2b": "conv2",
    "branch2c": "conv3",
    "pred": "linear",
}


def from_caffe2(name: str) -> str:
    """A Caffe2 ResNet's name: "res2_0_branch2a_bn_s" is "res2.0.conv1.norm.weight"."""
    norm = re.fullmatch(r"(.+)_[bg]n_(\w+)", name)
    parameter = re.fullmatch(r"(.+)_([wb])", name)
    if norm and norm[2] in _C2_NORM:
        modules, leaf = norm[1], f"norm.{_C2_NORM[norm[2]]}"
    elif parameter:
        modules, leaf = parameter[1], _C2_PARAMETER[parameter[2]]
    else:
        return name.replace("_", ".")
    modules = modules.removeprefix("res_")  # the stem's normalisation is "res_conv1_bn"
    path = [_C2_MODULE.get(part, part) for part in modules.split("_")]
    stem = ["stem"] if path[0] == "conv1" else []
    return ".".join([*stem, *path, leaf])


# In torchvision a norm is the sibling of its convolution, here its child.
_TORCHVISION = (
    (r"^(conv1|bn1)\b", r"stem.\1"),
    (r"^fc\b", "linear"),
    (r"^layer(\d)\b", lambda match: f"res{int(match[1]) + 1}"),
    (r"\bbn(\d)\b", r"conv\1.norm"),
    (r"\bdownsample\.0\b", "shortcut"),
    (r"\bdownsample\.1\b", "shortcut.norm"),
)


def is_torchvision_resnet(names: Mapping) -> bool:
    """Whether these are the names of torchvision's ResNet."""
    return {"conv1.weight", "bn1.weight", "layer1.0.conv1.weight"} <= names.keys()


def from_torchvision(name: str) -> str:
    """torchvision's ResNet: "layer1.0.downsample.0.weight" is "res2.0.shortcut.weight"."""
    for pattern, replacement in _TORCHVISION:
        name = re.sub(pattern, replacement, name)
    return name


# What is left of the classifier that the backbone was trained in.
_SWIN_CLASSIFIER = re.compile(r"(norm|head)\.(weight|bias)|layers\.\d+\.blocks\.\d+\.attn_mask")


def is_swin(names: Mapping) -> bool:
    """Whether these are the names of a bare Swin Transformer, as its authors publish it."""
    block = "layers.0.blocks.0."
    needed = {"patch_embed.proj.weight", f"{block}attn.relative_position_bias_table"}
    return needed <= names.keys()


def as_checkpoint(data: Any, path: str) -> dict[str, Any]:
    """The contents of any project's weight file as DetectionCheckpointer saves them.

    Args:
        path: of the file; its ending tells whose it may be.

    Returns:
        a dict with "model", names to tensors or arrays, and what else the file holds; with
        "matching_heuristics" if the names are those of a bare backbone.

    Raises:
        ValueError: there are no named weights in it.
    """
    data = dict(_as_mapping(data, path))
    if path.endswith(".pkl") and "model" not in data:
        # Caffe2's detection models have blobs, its classifiers are bare.
        blobs = _as_mapping(data.get("blobs", data), path)
        weights = {from_caffe2(k): v for k, v in blobs.items() if not k.endswith("_momentum")}
        return {"model": weights, HEURISTICS: True, "__author__": "Caffe2"}
    if path.endswith(".pyth") and "model_state" in data:
        weights = _as_mapping(data["model_state"], path)
        return {"model": weights, HEURISTICS: True, "__author__": "pycls"}
    if "model" not in data:
        data = {"model": data}
    weights = _as_mapping(data["model"], path)
    if is_torchvision_resnet(weights):
        weights = {from_torchvision(name): value for name, value in weights.items()}
        return {"model": weights, HEURISTICS: True, "__author__": "torchvision"}
    if is_swin(weights):
        weights = {k: v for k, v in weights.items() if not _SWIN_CLASSIFIER.fullmatch(k)}
        return {"model": weights, HEURISTICS: True, "__author__": "Swin-Transformer"}
    return data


def _as_mapping(value: Any, path: str) -> Mapping:
    if not isinstance(value, Mapping):
        raise ValueError(
            f"{path}: holds a {type(value).__name__} in place of named weights; give another"
        )
    return value


def match_names(
    wanted: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """`weights`, renamed to the names of a model that nests the network they come from.

    "backbone.res2.0.conv1.weight" takes "res2.0.conv1.weight": the longest name that is the end of
    its own, in whole components. What fits nowhere, or has another shape, keeps its name.

    Args:
        wanted: the model's state_dict.

    Raises:
        ValueError: two of the model's names end in the same one.
    """
    logger = logging.getLogger(__name__)
    taken: dict[str, str] = {}  # name of the file -> name of the model
    for key in sorted(wanted):
        name = next((end for end in endings(key) if end in weights), None)
        if name is None:
            continue
        found, expected = tuple(weights[name].shape), tuple(wanted[key].shape)
        if found != expected:
            logger.warning("%s%s does not fit %s%s: not loaded", name, found, key, expected)
            continue
        if name in taken:
            raise ValueError(
                f"{name} in the weights may be {taken[name]} or {key} in the model; rename it to "
                "either"
            )
        taken[name] = key
    logger.info("%d of %d weights match the model's %d", len(taken), len(weights), len(wanted))
    return {taken.get(name, name): value for name, value in weights.items()}


def endings(key: str) -> Iterator[str]:
    """ "a.b.c", "b.c" and "c" of "a.b.c"."""
    while key:
        yield key
        key = key.partition(".")[2]
