import copy

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


@pytest.mark.parametrize("num_images", [1, 2])
def test_with_channels_last_all_maps_stay_so(num_images):
    """A convolution that finds them otherwise would copy its input, or be slow."""
    features = {
        name: feature.detach()[:num_images].contiguous(memory_format=torch.channels_last)
        for name, feature in make_features().items()
    }
    decoder = build().eval()
    inputs = []
    for layer in (decoder.adapter_1, decoder.layer_1, decoder.mask_features):
        layer.register_forward_hook(lambda _, args, output: inputs.append((*args, output)))
    with torch.no_grad():
        _, _, levels = decoder.forward_features(features)
    assert len(inputs) == 3
    for tensor in (x for pair in inputs for x in pair):
        assert tensor.is_contiguous(memory_format=torch.channels_last)
    for level in levels:
        assert level.permute(0, 2, 3, 1).stride()[1:] == (level.shape[3] * 64, 64, 1)
        assert level[:1].is_contiguous(memory_format=torch.channels_last)


def test_inference_in_pieces_changes_nothing(monkeypatch):
    features, decoder = make_features(), build().eval()
    expected = decoder.forward_features(features)
    hidden = decoder.transformer.encoder["layers"][0].linear1
    num_rows = []
    hidden.register_forward_hook(lambda _, args, output: num_rows.append(len(args[0])))
    monkeypatch.setattr("mask2former.layers.chunks.CHUNK_BYTES", 100_000)
    with torch.no_grad():
        results = decoder.forward_features(features)
    assert len(num_rows) > 2 and sum(num_rows) == 2 * (6 + 24 + 96)
    torch.testing.assert_close(results[0], expected[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(results[2], expected[2], rtol=1e-4, atol=1e-5)


def test_inference_and_training_share_the_geometry():
    """Made in inference mode, it must not be what backward cannot save; nobody changes it."""
    features, decoder = make_features(), build().eval()
    with torch.inference_mode():
        first, _, _ = decoder.forward_features(features)
    sum(x.sum() for x in decoder.train().forward_features(features)[2]).backward()
    copied = copy.deepcopy(decoder).eval()
    with torch.no_grad():
        again, _, _ = copied.forward_features(features)
    torch.testing.assert_close(again, first.clone(), rtol=1e-4, atol=1e-5)


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
