import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mask2former.layers.transformer import (
    MLP,
    CrossAttentionLayer,
    FFNLayer,
    MultiheadAttention,
    SelfAttentionLayer,
)

DIM, HEADS = 16, 4


def randomise(module):
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.3)
    return module


def torch_attention(module, query, key, value, attn_blocked=None):
    """The same attention by torch's own module, which wants one mask for each head."""
    oracle = nn.MultiheadAttention(DIM, HEADS, batch_first=True)
    oracle.load_state_dict(module.state_dict())  # strict: the keys are torch's
    if attn_blocked is not None:
        attn_blocked = attn_blocked.repeat_interleave(HEADS, dim=0)
    return oracle(query, key, value, attn_mask=attn_blocked, need_weights=False)[0]


@pytest.mark.parametrize("masked", [False, True])
def test_attention_agrees_with_torchs_module(masked):
    module = randomise(MultiheadAttention(DIM, HEADS))
    query, key, value = torch.randn(2, 5, DIM), torch.randn(2, 9, DIM), torch.randn(2, 9, DIM)
    attn_blocked = None
    if masked:
        attn_blocked = torch.rand(2, 5, 9) < 0.6
        attn_blocked[..., 0] = False
    torch.testing.assert_close(
        module(query, key, value, attn_blocked),
        torch_attention(module, query, key, value, attn_blocked),
        rtol=1e-5,
        atol=1e-5,
    )


def test_blocked_keys_have_neither_influence_nor_gradient():
    module = randomise(MultiheadAttention(DIM, HEADS))
    query = torch.randn(1, 3, DIM)
    key = torch.randn(1, 6, DIM, requires_grad=True)
    attn_blocked = torch.zeros(1, 3, 6, dtype=torch.bool)
    attn_blocked[..., 4:] = True
    output = module(query, key, key, attn_blocked)
    output.square().sum().backward()
    assert (key.grad[:, 4:] == 0).all() and (key.grad[:, :4] != 0).any()
    torch.testing.assert_close(output, module(query, key[:, :4], key[:, :4]))


def test_cross_attention_layer_places_norm_and_positions():
    torch.manual_seed(0)
    query, feature = torch.randn(2, 5, DIM), torch.randn(2, 9, DIM)
    query_position, feature_position = torch.randn(5, DIM), torch.randn(9, DIM)
    attn_blocked = torch.zeros(2, 5, 9, dtype=torch.bool)
    for pre_norm in (False, True):
        layer = randomise(CrossAttentionLayer(DIM, HEADS, pre_norm))
        norm = layer.norm
        inner = norm(query) if pre_norm else query
        attended = torch_attention(
            layer.multihead_attn, inner + query_position, feature + feature_position, feature
        )
        expected = query + attended if pre_norm else norm(query + attended)
        key = feature + feature_position
        result = layer(query, query_position, key, feature, attn_blocked)
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


def test_self_attention_layer_places_norm_and_positions():
    torch.manual_seed(0)
    query, position = torch.randn(2, 5, DIM), torch.randn(5, DIM)
    for pre_norm in (False, True):
        layer = randomise(SelfAttentionLayer(DIM, HEADS, pre_norm))
        inner = layer.norm(query) if pre_norm else query
        attended = torch_attention(layer.self_attn, inner + position, inner + position, inner)
        expected = query + attended if pre_norm else layer.norm(query + attended)
        torch.testing.assert_close(layer(query, position), expected, rtol=1e-5, atol=1e-5)


def test_ffn_layer():
    torch.manual_seed(0)
    x = torch.randn(2, 5, DIM)
    for pre_norm in (False, True):
        layer = randomise(FFNLayer(DIM, 32, pre_norm))
        inner = layer.norm(x) if pre_norm else x
        hidden = (inner @ layer.linear1.weight.T + layer.linear1.bias).clamp(min=0)
        out = hidden @ layer.linear2.weight.T + layer.linear2.bias
        expected = x + out if pre_norm else layer.norm(x + out)
        torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)


def test_mlp_has_relus_between_its_layers_only():
    mlp = randomise(MLP(4, 8, 3, num_layers=3))
    x = torch.randn(5, 4)
    expected = mlp.layers[2](F.relu(mlp.layers[1](F.relu(mlp.layers[0](x)))))
    torch.testing.assert_close(mlp(x), expected)
    assert (expected < 0).any()


def test_heads_must_divide_channels():
    with pytest.raises(ValueError, match="do not divide"):
        MultiheadAttention(10, 4)
