import math

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model, build_sem_seg_head
from tiny_model import example, tiny_config
from torch_transformer import torch_decoder, torch_encoder

from mask2former.layers.position_encoding import sine_position_encoding
from mask2former.layers.transformer import MultiheadAttention
from mask2former.modeling.transformer_decoder.build import build_transformer_decoder

V1 = (
    *("MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME", "StandardTransformerDecoder"),
    *("MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE", "res5"),
    *("MODEL.MASK_FORMER.MASK_LOSS", "whole_masks"),
    *("MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME", "BasePixelDecoder"),
)
SHAPES = {f"res{i}": ShapeSpec(channels=8 * i, stride=2**i) for i in (2, 3, 4, 5)}


def build(*overrides, in_channels=48, mask_classification=True):
    torch.manual_seed(0)
    cfg = tiny_config(*V1, *overrides)
    return build_transformer_decoder(cfg, in_channels, mask_classification)


def make_features(in_channels=48):
    torch.manual_seed(1)
    return torch.randn(2, in_channels, 3, 5), torch.randn(2, 32, 12, 20)


@pytest.mark.parametrize("pre_norm", [False, True])
@torch.no_grad()
def test_it_is_torchs_transformer_with_positions(pre_norm):
    decoder = build(
        *("MODEL.MASK_FORMER.PRE_NORM", pre_norm),
        *("MODEL.MASK_FORMER.ENC_LAYERS", 2),
    ).eval()
    for parameter in decoder.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
    feature, pixel_feature = make_features()
    outputs = decoder(feature, pixel_feature)
    predictions = [*outputs.pop("aux_outputs"), outputs]

    state = decoder.state_dict()
    position = sine_position_encoding(3, 5, 64).flatten(1).T
    pixels = decoder.input_proj(feature).flatten(2).transpose(1, 2)
    pixels = torch_encoder(state, pixels, position, pre_norm)
    queries = torch_decoder(state, 4, state["query_embed.weight"], pixels, position, pre_norm)
    expected = [
        {
            "pred_logits": decoder.class_embed(query),
            "pred_masks": torch.einsum("bqc,bchw->bqhw", decoder.mask_embed(query), pixel_feature),
        }
        for query in queries
    ]
    for found, layer in zip(predictions, expected, strict=True):
        for key, numbers in layer.items():
            torch.testing.assert_close(found[key], numbers, rtol=1e-4, atol=1e-4)


def test_without_deep_supervision_there_is_the_last_prediction_only():
    outputs = build("MODEL.MASK_FORMER.DEEP_SUPERVISION", False).eval()(*make_features())
    expected = build().eval()(*make_features())
    assert len(outputs["aux_outputs"]) == 0 and len(expected["aux_outputs"]) == 3
    assert torch.equal(outputs["pred_masks"], expected["pred_masks"])


def test_masks_alone():
    decoder = build(mask_classification=False)
    outputs = decoder(*make_features())
    assert "pred_logits" not in outputs and outputs["pred_masks"].isfinite().all()
    assert not [name for name, _ in decoder.named_parameters() if "class_embed" in name]


def test_projection_where_channels_differ_or_on_request():
    assert build().input_proj.weight.shape == (64, 48, 1, 1)
    assert not list(build(in_channels=64).input_proj.parameters())
    enforced = build("MODEL.MASK_FORMER.ENFORCE_INPUT_PROJ", True, in_channels=64)
    assert enforced.input_proj.weight.shape == (64, 64, 1, 1)


def test_dropout_reaches_attention_weights_and_only_training():
    """Attention to equal values is their mean, unless weights are left out."""
    torch.manual_seed(0)
    attention = MultiheadAttention(8, 2, dropout=0.5)
    query, key, value = torch.randn(1, 3, 8), torch.randn(1, 40, 8), torch.ones(1, 40, 8)
    with torch.no_grad():
        kept = attention(query, key, value)
        outputs = torch.stack([attention(query, key, value) for _ in range(400)])
        whole = attention.eval()(query, key, value)
    assert (kept - whole).abs().max() > 0.01
    torch.testing.assert_close(outputs.mean(0), whole, rtol=0, atol=0.1)

    features = make_features()
    decoder = build("MODEL.MASK_FORMER.DROPOUT", 0.1)
    assert decoder.transformer["encoder"].training
    assert {m.dropout for m in decoder.modules() if isinstance(m, MultiheadAttention)} == {0.1}
    first, second = (decoder(*features)["pred_masks"] for _ in range(2))
    assert not torch.equal(first, second)
    decoder.eval()
    first, second = (decoder(*features)["pred_masks"] for _ in range(2))
    assert torch.equal(first, second)


def test_weights_start_as_detrs():
    for name, parameter in build("MODEL.MASK_FORMER.ENC_LAYERS", 1).transformer.named_parameters():
        if parameter.dim() > 1:
            bound = math.sqrt(6 / sum(parameter.shape))
            assert 0.95 * bound < parameter.abs().max() <= bound, name
        elif "norm" in name or "attn" in name:
            assert (parameter == float(name.endswith("weight"))).all(), name


@pytest.mark.parametrize(
    ("in_feature", "pixel_decoder"),
    [
        ("res5", "BasePixelDecoder"),
        ("res3", "MSDeformAttnPixelDecoder"),
        ("pixel_embedding", "BasePixelDecoder"),
        ("transformer_encoder", "TransformerEncoderPixelDecoder"),
        ("transformer_encoder", "MSDeformAttnPixelDecoder"),
    ],
)
def test_what_it_may_look_at(in_feature, pixel_decoder):
    head = build_sem_seg_head(
        tiny_config(
            *V1,
            *("MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE", in_feature),
            *("MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME", pixel_decoder),
        ),
        SHAPES,
    )
    features = {
        k: torch.randn(2, s.channels, 64 // s.stride, 64 // s.stride) for k, s in SHAPES.items()
    }
    outputs = head(features)
    assert outputs["pred_masks"].shape == (2, 10, 16, 16)
    assert outputs["pred_logits"].shape == (2, 10, 6)


def test_masked_decoder_on_a_feature_pyramid():
    """Mask2Former's decoder takes the three coarse levels of MaskFormer's pixel decoder."""
    model = build_model(tiny_config("MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME", "BasePixelDecoder"))
    losses = model.train()([example(0)])
    assert all(loss.isfinite() for loss in losses.values())


def test_model_trains_and_every_parameter_learns():
    model = build_model(tiny_config(*V1, "MODEL.MASK_FORMER.DROPOUT", 0.1)).train()
    losses = model([example(0), example(1, num_targets=0)])
    assert len(losses) == 3 * 4
    sum(losses.values()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ("MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME", "MultiScaleMaskedTransformerDecoder"),
            "IN_FEATURE='res5'.*StandardTransformerDecoder and MASK_LOSS to whole_masks",
        ),
        (
            ("MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE", "multi_scale_pixel_decoder"),
            "looks at one feature map; set it to res5",
        ),
        (
            ("MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE", "transformer_encoder"),
            "BasePixelDecoder has no encoder; set it to res5, or .*TransformerEncoderPixelDecoder",
        ),
        (
            (
                *("MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE", "multi_scale_pixel_decoder"),
                *("MODEL.SEM_SEG_HEAD.IN_FEATURES", ["res4", "res5"]),
            ),
            r"IN_FEATURES=\['res4', 'res5'\], but three levels",
        ),
        (("MODEL.MASK_FORMER.DEC_LAYERS", 0), "DEC_LAYERS=0; set it to 1 or more"),
    ],
)
def test_parts_that_do_not_fit_are_refused_in_one_sentence(overrides, message):
    with pytest.raises(ValueError, match=message):
        build_sem_seg_head(tiny_config(*V1, *overrides), SHAPES)
