import pytest
import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from tiny_model import tiny_config
from torch_transformer import torch_encoder

from mask2former.layers.position_encoding import sine_position_encoding
from mask2former.modeling.pixel_decoder.build import build_pixel_decoder

CHANNELS = {"res2": 8, "res3": 12, "res4": 16, "res5": 20}
STRIDES = {"res2": 4, "res3": 8, "res4": 16, "res5": 32}
SHAPES = {name: ShapeSpec(channels=CHANNELS[name], stride=STRIDES[name]) for name in CHANNELS}
NAMES = ("BasePixelDecoder", "TransformerEncoderPixelDecoder")


def make_features(height=64, width=96):
    torch.manual_seed(0)
    return {
        name: torch.randn(2, CHANNELS[name], -(-height // stride), -(-width // stride))
        for name, stride in STRIDES.items()
    }


def build(name, *overrides):
    torch.manual_seed(0)
    config = tiny_config("MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME", name, *overrides)
    return build_pixel_decoder(config, SHAPES)


def convolve(state, name, x):
    """A convolution of the state dict, its GroupNorm and, for the 3x3 ones, the ReLU."""
    weight = state[f"{name}.weight"]
    x = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
    x = F.group_norm(x, 32, state[f"{name}.norm.weight"], state[f"{name}.norm.bias"])
    return x.relu() if name.startswith("layer") else x


@pytest.mark.parametrize(
    ("name", "pre_norm"), [(NAMES[0], False), (NAMES[1], False), (NAMES[1], True)]
)
def test_pyramid_from_the_state_dict(name, pre_norm):
    """What the decoder computes, computed again from its official keys alone."""
    decoder = build(name, "MODEL.MASK_FORMER.PRE_NORM", pre_norm).eval()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        features = make_features()
        pixel_feature, encoded, levels = decoder.forward_features(features)

        state = decoder.state_dict()
        expected = features["res5"]
        if name == NAMES[1]:
            expected = F.conv2d(expected, state["input_proj.weight"], state["input_proj.bias"])
            position = sine_position_encoding(2, 3, 64).flatten(1).T
            expected = expected.flatten(2).transpose(1, 2)
            expected = torch_encoder(state, expected, position, pre_norm)
            expected = expected.transpose(1, 2).unflatten(2, (2, 3))
            torch.testing.assert_close(encoded, expected, rtol=1e-4, atol=1e-4)
        else:
            assert encoded is None
        expected = [convolve(state, "layer_4", expected)]
        for index in (3, 2, 1):
            upsampled = expected[-1].repeat_interleave(2, 2).repeat_interleave(2, 3)
            lateral = convolve(state, f"adapter_{index}", features[f"res{index + 1}"])
            expected.append(convolve(state, f"layer_{index}", lateral + upsampled))
        torch.testing.assert_close(levels, expected[:3], rtol=1e-4, atol=1e-4)
        weight, bias = state["mask_features.weight"], state["mask_features.bias"]
        expected = F.conv2d(expected[-1], weight, bias, padding=1)
        torch.testing.assert_close(pixel_feature, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_sizes_that_do_not_divide_evenly(name):
    decoder = build(name)
    pixel_feature, _, levels = decoder.forward_features(make_features(70, 101))
    assert pixel_feature.shape == (2, 32, 18, 26)
    assert [tuple(level.shape[1:]) for level in levels] == [(64, 3, 4), (64, 5, 7), (64, 9, 13)]


@pytest.mark.parametrize("name", NAMES)
def test_everything_that_comes_in_counts(name):
    features = {k: v.requires_grad_() for k, v in make_features().items()}
    decoder = build(name)
    pixel_feature, _, _ = decoder.forward_features(features)
    pixel_feature.square().sum().backward()
    for key, feature in features.items():
        assert (feature.grad != 0).float().mean() > 0.9, key
    assert all(p.grad is not None for p in decoder.parameters())


def test_convolutions_have_a_bias_only_without_norm():
    assert build(NAMES[0]).layer_1.bias is None
    decoder = build(NAMES[0], "MODEL.SEM_SEG_HEAD.NORM", "")
    assert decoder.layer_1.bias is not None and decoder.layer_1.norm is None


def test_dropout_is_of_training_only():
    features = make_features()
    decoder = build(NAMES[1], "MODEL.MASK_FORMER.DROPOUT", 0.3)
    first, second = (decoder.forward_features(features)[1] for _ in range(2))
    assert not torch.equal(first, second)
    decoder.eval()
    first, second = (decoder.forward_features(features)[1] for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("names", [["p2", "res3"], []])
def test_features_that_the_backbone_does_not_give(names):
    with pytest.raises(ValueError, match=r"IN_FEATURES=.*; choose from .*res2, res3, res4, res5"):
        build(NAMES[0], "MODEL.SEM_SEG_HEAD.IN_FEATURES", names)
