"""DETR's transformer by torch's own layers, which know no positions: these are added by hand.

Weights come from a state dict with the official keys. 64 channels, 8 heads, 128 hidden.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def _part(kind: Callable[..., nn.Module], state: dict, prefix: str, *args, **kwargs) -> nn.Module:
    module = kind(*args, **kwargs).eval()
    module.load_state_dict(
        {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    )
    return module


def _layer(kind: Callable[..., nn.Module], state: dict, prefix: str) -> nn.Module:
    return _part(kind, state, prefix, 64, 8, 128, batch_first=True)


def _step(x: Tensor, norm: nn.Module, pre_norm: bool, f: Callable[[Tensor], Tensor]) -> Tensor:
    return x + f(norm(x)) if pre_norm else norm(x + f(x))


def _encode(layer: nn.Module, x: Tensor, position: Tensor, pre_norm: bool) -> Tensor:
    def attend(y: Tensor) -> Tensor:
        return layer.self_attn(y + position, y + position, y)[0]

    x = _step(x, layer.norm1, pre_norm, attend)
    return _step(x, layer.norm2, pre_norm, lambda y: layer.linear2(layer.linear1(y).relu()))


def _decode(
    layer: nn.Module, query: Tensor, query_position: Tensor, x: Tensor, position: Tensor, pre: bool
) -> Tensor:
    def to_each_other(y: Tensor) -> Tensor:
        return layer.self_attn(y + query_position, y + query_position, y)[0]

    def to_pixels(y: Tensor) -> Tensor:
        return layer.multihead_attn(y + query_position, x + position, x)[0]

    query = _step(query, layer.norm1, pre, to_each_other)
    query = _step(query, layer.norm2, pre, to_pixels)
    return _step(query, layer.norm3, pre, lambda y: layer.linear2(layer.linear1(y).relu()))


def torch_encoder(state: dict, x: Tensor, position: Tensor, pre_norm: bool) -> Tensor:
    """Two layers: (B,S,C), (S,C) -> (B,S,C)"""
    for index in range(2):
        layer = _layer(nn.TransformerEncoderLayer, state, f"transformer.encoder.layers.{index}.")
        x = _encode(layer, x, position, pre_norm)
    return _part(nn.LayerNorm, state, "transformer.encoder.norm.", 64)(x) if pre_norm else x


def torch_decoder(
    state: dict, num_layers: int, query_position: Tensor, x: Tensor, position: Tensor, pre: bool
) -> list[Tensor]:
    """(Q,C), (B,S,C), (S,C) -> num_layers x (B,Q,C)"""
    norm = _part(nn.LayerNorm, state, "transformer.decoder.norm.", 64)
    query = torch.zeros(len(x), *query_position.shape)
    queries = []
    for index in range(num_layers):
        layer = _layer(nn.TransformerDecoderLayer, state, f"transformer.decoder.layers.{index}.")
        query = _decode(layer, query, query_position, x, position, pre)
        queries.append(norm(query))
    return queries
