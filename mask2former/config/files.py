"""From a YAML file and a command line to a config; what is wrong with either is one sentence."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode, get_cfg
from detectron2.projects.deeplab import add_deeplab_config

from mask2former.config.keys import add_maskformer2_config
from mask2former.hints import nearest

PACKAGE = Path(__file__).parents[1]

NAME_LISTS = ("DATASETS.TRAIN", "DATASETS.TEST")

# Configs stand beside the package in a checkout and inside it in a wheel.
CONFIG_ROOTS = (PACKAGE.parent / "configs", PACKAGE / "configs")


def get_config_file(name: str) -> str:
    """Path of a config that comes with the project, e.g. "quick_start.yaml".

    Raises:
        FileNotFoundError: there is none of this name.
    """
    for root in CONFIG_ROOTS:
        if (root / name).is_file():
            return str(root / name)
    have = {str(p.relative_to(root)) for root in CONFIG_ROOTS for p in root.rglob("*.yaml")}
    hint = nearest(name, have) or "; give its path, or the name of one in configs/"
    raise FileNotFoundError(f"{name}: no such config{hint}")


def load_config(config_file: str, opts: Sequence[str] = ()) -> CfgNode:
    """detectron2's defaults and ours, overridden by a YAML file, overridden by `opts`.

    Args:
        config_file: a path, or the name of a config that comes with the project, with or without
            "configs/" in front. It and its _BASE_ are read as plain data: python tags are refused.
        opts: KEY VALUE pairs as they stand on a command line.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is no YAML mapping of plain values, or a key is unknown, or a value
            has another type than the default.
    """
    cfg = get_cfg()
    add_deeplab_config(cfg)
    add_maskformer2_config(cfg)
    _merge_file(cfg, _find(config_file))
    _merge_opts(cfg, opts)
    return cfg


def _find(config_file: str) -> str:
    if not config_file:
        raise ValueError("no config; give one, e.g. --config-file configs/quick_start.yaml")
    if os.path.isfile(config_file):
        return config_file
    return get_config_file(config_file.removeprefix("configs/"))


def _merge_file(cfg: CfgNode, path: str) -> None:
    _check_file(cfg, path)
    try:
        cfg.merge_from_file(path, allow_unsafe=False)
    except ValueError as error:
        raise ValueError(f"{path}: {_type_problem(cfg, error)}") from error


def _check_file(cfg: CfgNode, path: str, above: tuple[str, ...] = ()) -> None:
    """Refuse a file, and those it stands on, that detectron2 could not merge into `cfg`.

    Args:
        above: the files that stand on this one.
    """
    chain = (*above, os.path.realpath(path))
    if chain[-1] in above:
        raise ValueError(f"{path}: stands on itself ({' -> '.join(chain)}); correct its _BASE_")
    values = _read_yaml(path)
    bases = values.pop("_BASE_", [])
    version = values.get("VERSION", cfg.VERSION)
    if version != cfg.VERSION:
        raise ValueError(f"{path}: VERSION is {version}; convert the file to {cfg.VERSION}")
    known = set(flat_keys(cfg))
    for key in flat_keys(values):
        _check_known(key, known, path)
        if key not in known and _get(values, key) != {}:
            raise ValueError(f"{path}: {_group_problem(cfg, key)}")
    for base in bases if isinstance(bases, list) else [bases]:
        if not isinstance(base, str):
            raise ValueError(f"{path}: its _BASE_ is {base!r}; give the path of a config")
        if "://" in base:  # detectron2 downloads it
            continue
        base = os.path.join(os.path.dirname(path), os.path.expanduser(base))
        if not os.path.isfile(base):
            raise FileNotFoundError(f"{path}: its _BASE_ {base} does not exist; correct the path")
        _check_file(cfg, base, chain)


def _read_yaml(path: str) -> dict:
    """What stands in the file itself, read as plain data."""
    with open(path, encoding="utf-8") as file:
        try:
            values = yaml.safe_load(file)
        except yaml.YAMLError as error:
            raise ValueError(_yaml_problem(path, error)) from error
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: no text ({error.reason}); give a YAML file") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: holds {values!r}; a config is a mapping of keys to values")
    return values


def _yaml_problem(path: str, error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or _one_line(error)
    where = f"{mark.name}, line {mark.line + 1}" if mark else path
    if isinstance(error, yaml.constructor.ConstructorError):
        return (
            f"{where}: {problem}; configs are plain data, because a tag could run code: "
            "write the value itself"
        )
    return f"{where}: no valid YAML ({problem}); correct it"


def _merge_opts(cfg: CfgNode, opts: Sequence[str]) -> None:
    for word in opts:
        if word.startswith("--"):  # what follows the first pair is not looked at for options
            raise ValueError(f"command line: put {word} before the KEY VALUE pairs")
    if len(opts) % 2:
        raise ValueError(
            f"command line: {' '.join(opts)!r} is not a list of KEY VALUE pairs; "
            f"{opts[-1]!r} is left over"
        )
    known = set(flat_keys(cfg))
    for key, value in zip(opts[::2], opts[1::2]):
        _check_known(key, known, "command line")
        if key in NAME_LISTS and value[:1] not in ("(", "["):
            value = (value,)  # one name as it is, without quotes and brackets
        try:
            cfg.merge_from_list([key, value])
        except ValueError as error:
            raise ValueError(f"command line: {_type_problem(cfg, error)}") from error


def flat_keys(node: Mapping, prefix: str = "") -> Iterator[str]:
    """ "MODEL.DEVICE" and so on: the leaves."""
    for name, value in node.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            yield from flat_keys(value, f"{key}.")
        else:
            yield key


def _check_known(key: str, known: set[str], where: str) -> None:
    if key in known or any(other.startswith(f"{key}.") for other in known):
        return
    raise ValueError(f"{where}: unknown config key {key}{nearest(key, known)}")


def _type_problem(cfg: CfgNode, error: ValueError) -> str:
    """What yacs says of a value of the wrong type, without the dump of a whole node."""
    key = str(error).rpartition(" ")[-1]
    default = _get(cfg, key)
    if isinstance(default, CfgNode):
        return _group_problem(cfg, key)
    given = str(error).rpartition(" vs. ")[-1].partition(") for config key")[0]
    kind = type(default).__name__
    return f"{key}={given} is of another type than its default {default!r}; give one of type {kind}"


def _group_problem(cfg: CfgNode, key: str) -> str:
    return f"{key} is a group of keys, not a value; set one of {', '.join(_get(cfg, key))}"


def _get(node: Mapping, key: str) -> Any:
    """The value or group at "MODEL.DEVICE"."""
    for name in key.split("."):
        node = node[name]
    return node


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
