"""Our weights under the names that transformers has for them, without transformers itself."""

import importlib.util

import pytest
import torch
from benchmarks.transformers_model import (
    describe,
    name_in_transformers,
    weights_in_transformers,
    why_not,
)
from tiny_model import tiny_config

PIXELS, QUERIES = "model.pixel_level_module", "model.transformer_module"


@pytest.mark.parametrize(
    "ours, theirs",
    [
        (
            "backbone.stem.conv1.weight",
            f"{PIXELS}.encoder.embedder.embedder.convolution.weight",
        ),
        (
            "backbone.res4.5.conv3.norm.running_var",
            f"{PIXELS}.encoder.encoder.stages.2.layers.5.layer.2.normalization.running_var",
        ),
        (
            "backbone.res2.0.shortcut.weight",
            f"{PIXELS}.encoder.encoder.stages.0.layers.0.shortcut.convolution.weight",
        ),
        (
            "sem_seg_head.pixel_decoder.transformer.encoder.layers.3.norm1.bias",
            f"{PIXELS}.decoder.encoder.layers.3.self_attn_layer_norm.bias",
        ),
        (
            "sem_seg_head.pixel_decoder.adapter_1.weight",
            f"{PIXELS}.decoder.adapter_1.0.weight",
        ),
        (
            "sem_seg_head.pixel_decoder.layer_1.norm.bias",
            f"{PIXELS}.decoder.layer_1.1.bias",
        ),
        (
            "sem_seg_head.predictor.transformer_cross_attention_layers.8.multihead_attn.in_proj_bias",
            f"{QUERIES}.decoder.layers.8.cross_attn.in_proj_bias",
        ),
        (
            "sem_seg_head.predictor.transformer_ffn_layers.0.linear2.weight",
            f"{QUERIES}.decoder.layers.0.fc2.weight",
        ),
        (
            "sem_seg_head.predictor.mask_embed.layers.2.weight",
            f"{QUERIES}.decoder.mask_predictor.mask_embedder.2.0.weight",
        ),
        ("sem_seg_head.predictor.class_embed.bias", "class_predictor.bias"),
        ("criterion.empty_weight", "criterion.empty_weight"),
    ],
)
def test_names(ours, theirs):
    assert name_in_transformers(ours) == theirs


def test_joined_projections_are_split():
    ours = "sem_seg_head.predictor.transformer_self_attention_layers.1.self_attn.in_proj_weight"
    weights = dict(weights_in_transformers({ours: torch.arange(12.0).view(6, 2)}))
    names = [f"{QUERIES}.decoder.layers.1.self_attn.{part}_proj.weight" for part in "qkv"]
    assert list(weights) == names
    assert weights[names[1]].tolist() == [[4, 5], [6, 7]]


def test_what_cannot_be_compared_is_told(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert why_not(tiny_config()) == "it is not installed (pip install transformers)"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: "there")
    head = ("MODEL.SEM_SEG_HEAD.NORM", "GN")
    assert why_not(tiny_config(*head, "MODEL.RESNETS.STRIDE_IN_1X1", False)) == ""
    assert "ResNet" in why_not(tiny_config(*head))
    assert "names" in why_not(
        tiny_config("MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME", "BasePixelDecoder")
    )


def test_its_settings_are_those_of_the_config():
    settings = describe(tiny_config("SOLVER.CLIP_GRADIENTS.ENABLED", False))
    assert settings.config["decoder_layers"] == 4 and settings.config["num_queries"] == 10
    assert settings.backbone["hidden_sizes"] == [64, 128, 256, 512]
    assert settings.backbone["layer_type"] == "basic" and settings.max_norm == 0
