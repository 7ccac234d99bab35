"""Every official config passes the checks that come before a run, and builds its model."""

import pytest
import torch
from detectron2.modeling import build_model
from official_configs import OFFICIAL

from mask2former.config import load_config, validate_config


@pytest.mark.parametrize("name", OFFICIAL)
def test_its_model_is_built(name):
    """Without memory for its weights, and with a head for each class of its dataset."""
    cfg = load_config(name, ["MODEL.DEVICE", "meta"])
    with torch.device("meta"):
        model = build_model(cfg)
    num_classes = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    shapes = {key.rpartition("predictor.")[2]: t.shape for key, t in model.state_dict().items()}
    if "class_embed.weight" in shapes:
        assert shapes["class_embed.weight"][0] == num_classes + 1
        assert shapes["query_embed.weight"][0] == cfg.MODEL.MASK_FORMER.NUM_OBJECT_QUERIES
    else:  # per-pixel baselines: a channel, or a query, a class
        assert shapes.get("weight", shapes.get("query_embed.weight"))[0] == num_classes
    assert {p.device.type for p in model.parameters()} == {"meta"}


@pytest.mark.parametrize("name", OFFICIAL)
def test_none_is_refused(name, tmp_path):
    opts = ["MODEL.DEVICE", "cpu", "OUTPUT_DIR", str(tmp_path)]
    validate_config(load_config(name, opts))
