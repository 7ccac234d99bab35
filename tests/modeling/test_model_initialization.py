"""Parameters start as the papers' code starts them: each group's distribution, by its name.

Uniform on +-b, or normal with deviation s. `xavier` takes b = sqrt(6 / (fan_in + fan_out)),
`c2_xavier` (Caffe2's) b = sqrt(3 / fan_in), torch's own linear layers b = 1 / sqrt(fan_in).
"""

import math
import re

import pytest
import torch
from detectron2.modeling import build_model
from tiny_model import tiny_config


def fans(shape):
    receptive = math.prod(shape[2:])
    return shape[1] * receptive, shape[0] * receptive


def xavier(shape):
    return math.sqrt(6 / sum(fans(shape)))


def c2_xavier(shape):
    return math.sqrt(3 / fans(shape)[0])


def torch_linear(shape):
    return 1 / math.sqrt(fans(shape)[0])


MODELS = {
    "mask2former": (
        *("MODEL.SEM_SEG_HEAD.CONVS_DIM", 128),
        *("MODEL.MASK_FORMER.ENFORCE_INPUT_PROJ", True),
        *("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 40),
    ),
    "maskformer": (
        *("MODEL.BACKBONE.NAME", "D2SwinTransformer"),
        *("MODEL.SWIN.EMBED_DIM", 32),
        *("MODEL.SWIN.DEPTHS", [1, 1, 1, 1]),
        *("MODEL.SWIN.NUM_HEADS", [2, 2, 4, 4]),
        *("MODEL.SWIN.APE", True),
        *("MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME", "TransformerEncoderPixelDecoder"),
        *("MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME", "StandardTransformerDecoder"),
        *("MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE", "transformer_encoder"),
        *("MODEL.MASK_FORMER.ENFORCE_INPUT_PROJ", True),
        *("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 40),
    ),
    "per_pixel": (
        *("MODEL.META_ARCHITECTURE", "SemanticSegmentor"),
        *("MODEL.SEM_SEG_HEAD.NAME", "PerPixelBaselineHead"),
        *("MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME", "BasePixelDecoder"),
        *("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 40),
    ),
}

HEAD = r".*\.sem_seg_head\."
SWIN = r"maskformer\.backbone\."
UNIFORM = {
    HEAD + r"pixel_decoder\.input_proj\.\d\.0\.weight": xavier,
    HEAD + r"pixel_decoder\.(adapter_\d|layer_\d|mask_features|input_proj)\.weight": c2_xavier,
    HEAD + r"pixel_decoder\.transformer\..*\.(linear1|linear2)\.weight": xavier,
    HEAD + r"pixel_decoder\.transformer\..*\.(value_proj|output_proj)\.weight": xavier,
    HEAD + r"predictor\..*_attention_layers\..*\.(in_proj_|out_proj\.)weight": xavier,
    HEAD + r"predictor\.transformer_ffn_layers\..*\.(linear1|linear2)\.weight": xavier,
    HEAD + r".*\.transformer\..*_attn\.(in_proj_|out_proj\.)weight": xavier,
    HEAD + r"predictor\.transformer\..*\.(linear1|linear2)\.weight": xavier,
    HEAD + r"predictor\.(class_embed|mask_embed\.layers\.\d)\.weight": torch_linear,
    HEAD + r"predictor\.input_proj(\.\d)?\.weight": c2_xavier,
    # The official backbone does not call its own initialisation: it is made to load weights.
    SWIN + r"(layers\..*\.(qkv|proj|fc1|fc2|reduction)|patch_embed\.proj)\.weight": torch_linear,
}
NORMAL = {
    HEAD
    + r"(pixel_decoder\.transformer\.level_embed"
    + r"|predictor\.(query_feat|query_embed|level_embed)\.weight)": 1,
    SWIN + r".*(relative_position_bias_table|absolute_pos_embed)": 0.02,
    r"per_pixel\.sem_seg_head\.predictor\.weight": math.sqrt(2 / 40),  # c2_msra: fan-out
}
ZERO = (
    HEAD
    + r"(pixel_decoder\.(input_proj\.\d\.[01]|input_proj|mask_features)\.bias"
    + r"|.*\.sampling_offsets\.weight|.*\.attention_weights\.(weight|bias)"
    + r"|.*\.(value_proj|output_proj|out_proj)\.bias|.*\.in_proj_bias"
    + r"|predictor\.(input_proj(\.\d)?\.)?bias|.*norm\d?\.bias)"
)
ONE = HEAD + r"(.*norm\d?\.weight|pixel_decoder\.input_proj\.\d\.1\.weight)"
SWIN_NORM = SWIN + r".*norm\d?\.(weight|bias)"
# Biases of torch's linear layers: uniform, with the fan-in of their weight.
LINEAR_BIAS = (
    rf"({HEAD}.*(linear[12]|class_embed|mask_embed\.layers\.\d)|{SWIN}.*(qkv|proj|fc[12]))\.bias"
)
OFFSETS = HEAD + r".*\.sampling_offsets\.bias"  # test_ms_deform_attn.py


@pytest.fixture(scope="module")
def parameters():
    torch.manual_seed(0)
    models = {name: build_model(tiny_config(*overrides)) for name, overrides in MODELS.items()}
    named = {f"{m}.{k}": v for m, model in models.items() for k, v in model.named_parameters()}
    return {k: v.detach() for k, v in named.items() if re.match(f"{HEAD}|{SWIN}", k)}


def assert_uniform(name, values, bound):
    values = values.flatten()
    assert values.abs().max() <= bound * 1.0001, name
    # Mean and deviation of n uniform numbers, to five of their standard errors.
    n = len(values)
    assert values.mean().abs() < 5 * bound / math.sqrt(3 * n), name
    assert abs(values.std() / (bound / math.sqrt(3)) - 1) < 5 * 0.45 / math.sqrt(n), name


def test_every_parameter_is_distributed_as_it_should(parameters):
    for name, values in parameters.items():
        rules = [rule for pattern, rule in UNIFORM.items() if re.fullmatch(pattern, name)]
        if rules:
            assert_uniform(name, values, rules[0](values.shape))
        elif deviations := [d for pattern, d in NORMAL.items() if re.fullmatch(pattern, name)]:
            n = values.numel()
            assert values.mean().abs() < 5 * deviations[0] / math.sqrt(n), name
            assert abs(values.std() / deviations[0] - 1) < 5 / math.sqrt(2 * n), name
        elif re.fullmatch(ZERO, name):
            assert (values == 0).all(), name
        elif re.fullmatch(ONE, name):
            assert (values == 1).all(), name
        elif re.fullmatch(SWIN_NORM, name):
            assert (values == name.endswith("weight")).all(), name
        elif re.fullmatch(LINEAR_BIAS, name):
            weight = parameters[name.removesuffix("bias") + "weight"]
            assert values.abs().max() <= torch_linear(weight.shape), name
            assert values.std() > 0.3 * torch_linear(weight.shape), name
        else:
            assert re.fullmatch(OFFSETS, name), f"{name}: no rule tells how it starts"


def test_no_rule_is_idle(parameters):
    for pattern in (*UNIFORM, *NORMAL, ZERO, ONE, SWIN_NORM, LINEAR_BIAS, OFFSETS):
        assert any(re.fullmatch(pattern, name) for name in parameters), pattern
