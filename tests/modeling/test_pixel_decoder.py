import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from tiny_model import tiny_config
from torch import nn

from mask2former.modeling.pixel_decoder.build import build_pixel_decoder
from mask2former.modeling.pixel_decoder.msdeformattn import pixel_centers

CHANNELS = {"res2": 8, "res3": 12, "res4": 16, "res5": 20}
STRIDES = {"res2": 4, "res3": 8, "res4": 16, "res5": 32}
SHAPES = {name: ShapeSpec(channels=CHANNELS[name], stride=STRIDES[name]) for name in CHANNELS}


def make_features(height=64, width=96):
    torch.manual_seed(0)
    return {
        name: torch.randn(2, CHANNELS[name], height // stride, width // stride, requires_grad=True)
        for name, stride in STRIDES.items()
    }


def build(*overrides):
    torch.manual_seed(0)
    return build_pixel_decoder(tiny_config(*overrides), SHAPES)


def test_pixel_centers():
    assert pixel_centers(2, 3, torch.device("cpu")).tolist() == [
        pytest.approx([(x + 0.5) / 3, (y + 0.5) / 2]) for y in range(2) for x in range(3)
    ]


def test_outputs_run_from_coarse_to_fine():
    pixel_feature, coarsest, levels = build().forward_features(make_features())
    assert pixel_feature.shape == (2, 32, 16, 24)
    assert [tuple(level.shape) for level in levels] == [
        (2, 64, 2, 3),
        (2, 64, 4, 6),
        (2, 64, 8, 12),
    ]
    assert torch.equal(coarsest, levels[0])


def test_fewer_encoder_levels_are_completed_top_down():
    decoder = build(
        "MODEL.SEM_SEG_HEAD.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES", ["res4", "res5"]
    )
    _, _, levels = decoder.forward_features(make_features())
    assert [tuple(level.shape[-2:]) for level in levels] == [(2, 3), (4, 6), (8, 12)]
    assert {name for name, _ in decoder.named_children() if name.startswith("adapter")} == {
        "adapter_1",
        "adapter_2",
    }


def test_everything_that_comes_in_counts():
    features = make_features()
    decoder = build()
    pixel_feature, _, levels = decoder.forward_features(features)
    (pixel_feature.square().sum() + sum(level.square().sum() for level in levels)).backward()
    for name, feature in features.items():
        assert (feature.grad != 0).float().mean() > 0.9, name
    # At first all points of a head count alike, so only they themselves have no gradient yet.
    assert all(p.grad is not None for p in decoder.parameters())


def test_images_of_a_batch_do_not_mix():
    features = make_features()
    decoder = build()
    second = {name: feature[1:] for name, feature in features.items()}
    both, alone = decoder.forward_features(features), decoder.forward_features(second)
    torch.testing.assert_close(both[0][1:], alone[0], rtol=1e-4, atol=1e-5)


def test_it_stays_in_single_precision_under_autocast():
    decoder, features = build(), make_features()
    expected, _, _ = decoder.forward_features(features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result, _, levels = decoder.forward_features(features)
    assert torch.equal(result, expected) and levels[0].dtype == torch.float32
    half = {name: feature.bfloat16() for name, feature in features.items()}
    assert decoder.forward_features(half)[0].dtype == torch.float32


def test_number_of_points_is_configurable():
    decoder = build("MODEL.SEM_SEG_HEAD.DEFORMABLE_TRANSFORMER_ENCODER_N_POINTS", 2)
    layer = decoder.transformer.encoder["layers"][0].self_attn
    assert layer.attention_weights.out_features == 8 * 3 * 2


def test_two_keys_for_the_heads_must_not_contradict():
    with pytest.raises(ValueError, match=r"N_HEADS=2.*MODEL.MASK_FORMER.NHEADS"):
        build("MODEL.SEM_SEG_HEAD.DEFORMABLE_TRANSFORMER_ENCODER_N_HEADS", 2)


def test_head_that_is_no_pixel_decoder():
    class NoPixelDecoder(nn.Module):
        def __init__(self, cfg, input_shape):
            super().__init__()

    if "NoPixelDecoder" not in SEM_SEG_HEADS_REGISTRY:
        SEM_SEG_HEADS_REGISTRY.register(NoPixelDecoder)
    with pytest.raises(ValueError, match="'NoPixelDecoder' has no forward_features"):
        build("MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME", "NoPixelDecoder")
    with pytest.raises(ValueError, match="'Nonsense' is not registered"):
        build("MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME", "Nonsense")
