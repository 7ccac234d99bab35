"""The configs that come with the project resolve to the official values."""

import json
from pathlib import Path

import pytest
import yaml

from mask2former.config import get_config_file, load_config

GOLDEN = Path(__file__).parents[1] / "goldens" / "config_cityscapes_sem_r50.json"
CITYSCAPES_R50 = "cityscapes/semantic-segmentation/maskformer2_R50_bs16_90k.yaml"
CONFIGS = sorted((Path(__file__).parents[2] / "configs").rglob("*.yaml"))


def value(cfg, key):
    for name in key.split("."):
        cfg = cfg[name]
    return list(cfg) if isinstance(cfg, tuple) else cfg


def leaves(node, prefix=""):
    for name, child in node.items():
        if isinstance(child, dict):
            yield from leaves(child, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def test_cityscapes_r50_has_the_official_values():
    golden = json.loads(GOLDEN.read_text())
    expected = golden["defaults"] | golden["config"]
    cfg = load_config(CITYSCAPES_R50)
    assert {key: value(cfg, key) for key in expected} == expected


def test_cityscapes_r50_changes_nothing_else():
    golden = json.loads(GOLDEN.read_text())
    expected = golden["defaults"] | golden["config"]
    written = set(leaves(yaml.safe_load(Path(get_config_file(CITYSCAPES_R50)).read_text())))
    assert written <= {*expected, "_BASE_"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_config_loads(path):
    assert load_config(str(path)).VERSION == 2


def test_each_file_holds_only_its_deltas():
    for path in CONFIGS:
        own = yaml.safe_load(path.read_text())
        if "_BASE_" not in own:
            continue
        base = load_config(str((path.parent / own["_BASE_"]).resolve()))
        repeated = [
            key
            for key in leaves(own)
            if key != "_BASE_" and value(base, key) == value(load_config(str(path)), key)
        ]
        assert not repeated, (path, repeated)
