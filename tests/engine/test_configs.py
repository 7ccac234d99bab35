"""The configs that come with the project: official names and values, each file only its deltas."""

import json
from pathlib import Path

import pytest
import yaml
from detectron2.config import get_cfg
from official_configs import OFFICIAL, official_values

from mask2former.config import load_config

CONFIG_DIR = Path(__file__).parents[2] / "configs"
CONFIGS = sorted(CONFIG_DIR.rglob("*.yaml"))


def leaves(node, prefix=""):
    for name, child in node.items():
        if isinstance(child, dict):
            yield from leaves(child, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", json.loads(json.dumps(child))  # tuples as lists


def with_bases_only(path, bases, tmp_path):
    """The config that `path` stands on."""
    bases = bases if isinstance(bases, list) else [bases]
    file = tmp_path / "bases.yaml"
    file.write_text(yaml.safe_dump({"_BASE_": [str(path.parent / base) for base in bases]}))
    return load_config(str(file))


def test_all_official_configs_are_there():
    assert len(OFFICIAL) == 47 + 30
    assert [path for path in OFFICIAL if not (CONFIG_DIR / path).is_file()] == []


@pytest.mark.parametrize("path", OFFICIAL)
def test_official_values(path):
    cfg = dict(leaves(load_config(path)))
    expected = dict(leaves(get_cfg())) | official_values(path) | {"MODEL.DEVICE": "auto"}
    if OFFICIAL[path][0] == "MaskFormer":  # whose code has no such keys; it builds nothing else
        assert cfg["MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME"] == "StandardTransformerDecoder"
        assert cfg["MODEL.MASK_FORMER.MASK_LOSS"] == "whole_masks"
    assert {key: cfg[key] for key in expected} == expected


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(CONFIG_DIR)))
def test_each_file_holds_only_its_deltas(path, tmp_path):
    own = yaml.safe_load(path.read_text())
    if "_BASE_" not in own:  # to be laid over others
        return
    bases = own.pop("_BASE_")
    before = dict(leaves(with_bases_only(path, bases, tmp_path)))
    after = dict(leaves(load_config(str(path))))
    repeated = [key for key, _ in leaves(own) if key != "VERSION" and before[key] == after[key]]
    assert not repeated
