import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_sem_seg_head
from tiny_model import tiny_config

SHAPES = {f"res{i}": ShapeSpec(channels=8 * i, stride=2**i) for i in (2, 3, 4, 5)}


def build(*overrides):
    torch.manual_seed(0)
    return build_sem_seg_head(tiny_config(*overrides), SHAPES)


def test_features_to_predictions():
    features = {
        name: torch.randn(2, s.channels, 64 // s.stride, 96 // s.stride)
        for name, s in SHAPES.items()
    }
    outputs = build()(features)
    assert outputs["pred_logits"].shape == (2, 10, 6)
    assert outputs["pred_masks"].shape == (2, 10, 16, 24)


def test_early_official_keys_load():
    """They have the pixel decoder's weights at the head itself."""
    head = build()
    state = head.state_dict()
    early = {k.removeprefix("pixel_decoder."): v + 1 for k, v in state.items()}
    assert "mask_features.weight" in early
    head.load_state_dict(early)
    for key, value in head.state_dict().items():
        assert torch.equal(value, early[key.removeprefix("pixel_decoder.")]), key


def test_keys_of_something_else_are_still_unexpected():
    head = build()
    with pytest.raises(RuntimeError, match=r"Unexpected key.*nonsense"):
        head.load_state_dict({**head.state_dict(), "nonsense": torch.zeros(1)})


def test_unknown_feature_for_the_transformer():
    with pytest.raises(ValueError, match=r"TRANSFORMER_IN_FEATURE='res7'.*res5"):
        build("MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE", "res7")
