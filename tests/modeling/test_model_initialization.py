"""Parameters start as the paper's code starts them: each group's distribution, by its name.

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


HEAD = r"sem_seg_head\."
UNIFORM = {
    HEAD + r"pixel_decoder\.input_proj\.\d\.0\.weight": xavier,
    HEAD + r"pixel_decoder\.(adapter_1|layer_1|mask_features)\.weight": c2_xavier,
    HEAD + r"pixel_decoder\.transformer\..*\.(linear1|linear2)\.weight": xavier,
    HEAD + r"pixel_decoder\.transformer\..*\.(value_proj|output_proj)\.weight": xavier,
    HEAD + r"predictor\..*_attention_layers\..*\.(in_proj_|out_proj\.)weight": xavier,
    HEAD + r"predictor\.transformer_ffn_layers\..*\.(linear1|linear2)\.weight": xavier,
    HEAD + r"predictor\.(class_embed|mask_embed\.layers\.\d)\.weight": torch_linear,
    HEAD + r"predictor\.input_proj\.\d\.weight": c2_xavier,
}
NORMAL = HEAD + r"(pixel_decoder\.transformer\.level_embed"
NORMAL += r"|predictor\.(query_feat|query_embed|level_embed)\.weight)"
ZERO = HEAD + (
    r"(pixel_decoder\.(input_proj\.\d\.[01]|mask_features)\.bias"
    r"|.*\.sampling_offsets\.weight|.*\.attention_weights\.(weight|bias)"
    r"|.*\.(value_proj|output_proj|out_proj)\.bias|.*\.in_proj_bias"
    r"|predictor\.input_proj\.\d\.bias|.*norm\d?\.bias)"
)
ONE = HEAD + r"(.*norm\d?\.weight|pixel_decoder\.input_proj\.\d\.1\.weight)"
# Biases of torch's linear layers: uniform, with the fan-in of their weight.
LINEAR_BIAS = HEAD + r".*(linear[12]|class_embed|mask_embed\.layers\.\d)\.bias"
OFFSETS = HEAD + r".*\.sampling_offsets\.bias"  # test_ms_deform_attn.py


@pytest.fixture(scope="module")
def parameters():
    torch.manual_seed(0)
    model = build_model(
        tiny_config(
            *("MODEL.SEM_SEG_HEAD.CONVS_DIM", 128),
            *("MODEL.MASK_FORMER.ENFORCE_INPUT_PROJ", True),
            *("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 40),
        )
    )
    return {k: v.detach() for k, v in model.named_parameters() if k.startswith("sem_seg_head")}


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
        elif re.fullmatch(NORMAL, name):
            n = values.numel()
            assert values.mean().abs() < 5 / math.sqrt(n), name
            assert abs(values.std() - 1) < 5 / math.sqrt(2 * n), name
        elif re.fullmatch(ZERO, name):
            assert (values == 0).all(), name
        elif re.fullmatch(ONE, name):
            assert (values == 1).all(), name
        elif re.fullmatch(LINEAR_BIAS, name):
            weight = parameters[name.removesuffix("bias") + "weight"]
            assert values.abs().max() <= torch_linear(weight.shape), name
            assert values.std() > 0.3 * torch_linear(weight.shape), name
        else:
            assert re.fullmatch(OFFSETS, name), f"{name}: no rule tells how it starts"


def test_no_rule_is_idle(parameters):
    for pattern in (*UNIFORM, NORMAL, ZERO, ONE, LINEAR_BIAS, OFFSETS):
        assert any(re.fullmatch(pattern, name) for name in parameters), pattern
