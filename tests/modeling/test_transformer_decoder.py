import pytest
import torch
import torch.nn.functional as F
from tiny_model import tiny_config

from mask2former.layers import mask_products
from mask2former.layers.position_encoding import sine_position_encoding
from mask2former.modeling.transformer_decoder import mask2former, predictions
from mask2former.modeling.transformer_decoder.build import build_transformer_decoder
from mask2former.modeling.transformer_decoder.mask2former import attention_blocked_by


def build(*overrides, in_channels=64):
    torch.manual_seed(0)
    return build_transformer_decoder(tiny_config(*overrides), in_channels).eval()


def make_features(in_channels=64):
    torch.manual_seed(1)
    levels = [torch.randn(2, in_channels, 2 * s, 3 * s) for s in (1, 2, 4)]
    return levels, torch.randn(2, 32, 16, 24)


def test_attention_is_blocked_outside_of_the_mask():
    torch.manual_seed(0)
    mask_logits = torch.randn(2, 3, 8, 12)
    blocked = attention_blocked_by(mask_logits)
    assert blocked.shape == (2, 3, 96) and blocked.dtype == torch.bool
    assert torch.equal(blocked, mask_logits.sigmoid().flatten(2) < 0.5)


def test_query_with_an_empty_mask_looks_everywhere():
    mask_logits = torch.full((1, 3, 8, 12), -5.0)
    mask_logits[0, 1, 2, 2] = 100
    blocked = attention_blocked_by(mask_logits)
    assert not blocked[0, 0].any() and not blocked[0, 2].any()
    assert blocked[0, 1].sum() == 8 * 12 - 1


def test_outputs():
    outputs = build()(*make_features())
    predictions = [*outputs["aux_outputs"], outputs]
    assert len(predictions) == 4  # DEC_LAYERS: the queries themselves and three layers
    for prediction in predictions:
        assert prediction["pred_logits"].shape == (2, 10, 6)
        assert prediction["pred_masks"].shape == (2, 10, 16, 24)


def test_the_first_prediction_sees_no_feature_level():
    decoder = build()
    levels, pixel_feature = make_features()
    first = decoder(levels, pixel_feature)["aux_outputs"][0]
    other = decoder([level + 1 for level in levels], pixel_feature)["aux_outputs"][0]
    assert torch.equal(first["pred_logits"], other["pred_logits"])


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_layer_looks_at_its_own_level_within_the_last_mask(layer):
    """Features change where all queries are blocked: nothing may happen; elsewhere: something."""
    decoder = build()
    levels, pixel_feature = make_features()
    outputs = decoder(levels, pixel_feature)
    predictions = [*outputs["aux_outputs"], outputs]
    level = layer - 1
    masks = predictions[layer - 1]["pred_masks"]
    blocked = attention_blocked_by(F.interpolate(masks, levels[level].shape[-2:], mode="bilinear"))
    blocked_pixel = int(blocked[0, 4].nonzero()[0])
    free_pixel = int((~blocked[0, 4]).nonzero()[0])
    layer_of_level = decoder.transformer_cross_attention_layers[layer - 1]
    feature = levels[level].flatten(2).transpose(1, 2)

    def attend(change_at=None):  # what query 4 of the first image sees
        changed = feature.clone()
        if change_at is not None:
            changed[0, change_at] += 1
        queries = decoder.query_feat.weight.expand(2, -1, -1)
        return layer_of_level(queries, decoder.query_embed.weight, changed, changed, blocked)[0, 4]

    torch.testing.assert_close(attend(blocked_pixel), attend(), rtol=0, atol=1e-6)
    assert (attend(free_pixel) - attend()).abs().max() > 1e-3

    changed = [feature.clone() for feature in levels]
    changed[level] += 1
    outputs = decoder(changed, pixel_feature)
    others = [*outputs["aux_outputs"], outputs]
    for index in range(4):
        same = torch.equal(predictions[index]["pred_logits"], others[index]["pred_logits"])
        assert same == (index < layer)


def in_official_order(decoder, levels, pixel_feature):
    """Every mask at full size first, then resized for attention: what our order must agree with."""
    flat = [x.flatten(2).transpose(1, 2) for x in levels]
    values = [x + embedding for x, embedding in zip(flat, decoder.level_embed.weight)]
    positions = [sine_position_encoding(*x.shape[-2:], x.shape[1]).flatten(1).T for x in levels]
    query, position = decoder.query_feat.weight.expand(2, -1, -1), decoder.query_embed.weight
    layers = zip(
        decoder.transformer_cross_attention_layers,
        decoder.transformer_self_attention_layers,
        decoder.transformer_ffn_layers,
    )

    def predict():
        normed = decoder.decoder_norm(query)
        masks = torch.einsum("bqc,bchw->bqhw", decoder.mask_embed(normed), pixel_feature)
        return {"pred_logits": decoder.class_embed(normed), "pred_masks": masks}

    predictions = [predict()]
    for index, (cross_attention, self_attention, ffn) in enumerate(layers):
        i = index % 3
        size = levels[i].shape[-2:]
        masks = F.interpolate(predictions[-1]["pred_masks"], size, mode="bilinear")
        blocked = masks.sigmoid().flatten(2) < 0.5
        blocked[blocked.all(-1)] = False
        query = cross_attention(query, position, values[i] + positions[i], values[i], blocked)
        query = ffn(self_attention(query, position))
        predictions.append(predict())
    return predictions


@pytest.mark.parametrize("training", [False, True])
def test_it_agrees_with_masks_resized_after_the_product(training):
    decoder = build("MODEL.MASK_FORMER.DEC_LAYERS", 6).train(training)
    levels, pixel_feature = make_features()
    outputs = decoder(levels, pixel_feature)
    found = [
        {name: prediction[name] for name in ("pred_logits", "pred_masks")}
        for prediction in (*outputs["aux_outputs"], outputs)
    ]
    expected = in_official_order(decoder, levels, pixel_feature)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("training", [False, True])
def test_full_size_masks_are_made_when_they_are_read(training, monkeypatch):
    decoder = build().train(training)
    sizes = []

    def products(embedding, feature):
        sizes.append(tuple(feature.shape[-2:]))
        return mask_products.mask_products(embedding, feature)

    for module in (predictions, mask2former):
        monkeypatch.setattr(module, "mask_products", products)
    outputs = decoder(*make_features())
    assert sizes == [(2, 3), (4, 6), (8, 12)] + [(16, 24)] * (not training)  # first for attention
    assert ("pred_masks" in outputs) is not training
    *_, earlier = outputs["aux_outputs"]
    assert all(prediction["pred_masks"].requires_grad for prediction in (outputs, earlier))
    assert sizes[3:] == [(16, 24)] * 2
    assert outputs["pred_masks"] is outputs["pred_masks"]  # made once
    first = outputs["aux_outputs"][0]
    assert {name: value.shape for name, value in first.items()}["pred_masks"] == (2, 10, 16, 24)
    with pytest.raises(KeyError, match="masks"):
        outputs["masks"]


@pytest.mark.parametrize("training", [False, True])
def test_a_compiler_passes_through(training):
    decoder = build("MODEL.MASK_FORMER.DEC_LAYERS", 2).train(training)
    inputs = make_features()
    compiled = torch.compile(decoder, backend="eager", fullgraph=True)  # it must trace
    outputs, expected = compiled(*inputs), decoder(*inputs)
    for found, layer in zip(
        (outputs, *outputs["aux_outputs"]), (expected, *expected["aux_outputs"]), strict=True
    ):
        for key in ("pred_logits", "pred_masks"):
            torch.testing.assert_close(found[key], layer[key])


def test_projection_where_channels_differ_or_on_request():
    assert not list(build().input_proj.parameters())
    assert len(list(build(in_channels=48).input_proj.parameters())) == 6
    enforced = build("MODEL.MASK_FORMER.ENFORCE_INPUT_PROJ", True)
    assert enforced.input_proj[0].weight.shape == (64, 64, 1, 1)
    outputs = build(in_channels=48)(*make_features(48))
    assert outputs["pred_logits"].isfinite().all()


@pytest.mark.parametrize("pre_norm", [False, True])
def test_half_precision_stays_finite_and_near(pre_norm):
    decoder = build("MODEL.MASK_FORMER.PRE_NORM", pre_norm)
    levels, pixel_feature = make_features()
    exact = decoder(levels, pixel_feature)["aux_outputs"][0]["pred_masks"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = decoder(levels, pixel_feature)
    assert outputs["pred_masks"].isfinite().all() and outputs["pred_logits"].isfinite().all()
    near = outputs["aux_outputs"][0]["pred_masks"].float()
    assert (near - exact).abs().max() < 0.05 * exact.abs().max()


def test_every_parameter_has_a_gradient():
    decoder = build()
    outputs = decoder(*make_features())
    sum(
        p["pred_logits"].sum() + p["pred_masks"].square().sum()
        for p in (outputs, *outputs["aux_outputs"])
    ).backward()
    assert all(p.grad is not None for p in decoder.parameters())


def test_early_name_of_the_query_features_loads():
    decoder = build()
    state = decoder.state_dict()
    state["static_query.weight"] = state.pop("query_feat.weight") + 1
    expected = state["static_query.weight"].clone()
    decoder.load_state_dict(state)
    assert torch.equal(decoder.query_feat.weight, expected)


def test_number_of_layers_must_count_the_queries():
    with pytest.raises(ValueError, match="DEC_LAYERS=0"):
        build("MODEL.MASK_FORMER.DEC_LAYERS", 0)


def test_unknown_decoder_names_the_known_ones():
    with pytest.raises(ValueError, match=r"='Nonsense'; set it to one of .*MultiScaleMasked"):
        build("MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME", "Nonsense")
