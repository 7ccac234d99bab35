"""DETR's transformer, which MaskFormer takes over (DETR, app. A.3 and fig. 10).

B batch, S pixels of the feature map, Q queries, C channels. Parameter names are the official ones.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mask2former.layers.position_encoding import sine_position_encoding
from mask2former.layers.transformer import MultiheadAttention


def pixels_and_positions(feature: Tensor) -> tuple[Tensor, Tensor]:
    """A feature map as the layers take it: (B,C,H,W) -> (B,S,C), (S,C)"""
    position = sine_position_encoding(*feature.shape[-2:], feature.shape[1], feature.device)
    return feature.flatten(2).transpose(1, 2), position.flatten(1).T


class _Layer(nn.Module):
    """What layers of the encoder and of the decoder share: their steps and the first and last."""

    def __init__(
        self, dim: int, num_heads: int, feedforward_dim: int, dropout: float, pre_norm: bool
    ):
        """
        Args:
            dropout: of each step's result, of the attention weights and of the hidden layer.
            pre_norm: normalise before each step; else after its sum.
        """
        super().__init__()
        self.self_attn = MultiheadAttention(dim, num_heads, dropout)
        self.linear1 = nn.Linear(dim, feedforward_dim)
        self.linear2 = nn.Linear(feedforward_dim, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        self.pre_norm = pre_norm
        nn.init.xavier_uniform_(self.linear1.weight)
        nn.init.xavier_uniform_(self.linear2.weight)

    def step(self, x: Tensor, norm: nn.Module, f: Callable[[Tensor], Tensor]) -> Tensor:
        if self.pre_norm:
            return x + self.dropout(f(norm(x)))
        return norm(x + self.dropout(f(x)))

    def attend(self, x: Tensor, position: Tensor) -> Tensor:
        positioned = x + position
        return self.self_attn(positioned, positioned, x)

    def feed_forward(self, x: Tensor) -> Tensor:
        return self.linear2(self.dropout(F.relu(self.linear1(x))))


class EncoderLayer(_Layer):
    """Pixels look at each other, then each is transformed by itself."""

    def forward(self, feature: Tensor, position: Tensor) -> Tensor:
        """Shapes: (B,S,C), (S,C) -> (B,S,C)"""
        feature = self.step(feature, self.norm1, lambda x: self.attend(x, position))
        return self.step(feature, self.norm2, self.feed_forward)


class DecoderLayer(_Layer):
    """Queries look at each other, then at the pixels; then each is transformed by itself."""

    def __init__(
        self, dim: int, num_heads: int, feedforward_dim: int, dropout: float, pre_norm: bool
    ):
        super().__init__(dim, num_heads, feedforward_dim, dropout, pre_norm)
        self.multihead_attn = MultiheadAttention(dim, num_heads, dropout)
        self.norm3 = nn.LayerNorm(dim)

    def forward(
        self, query: Tensor, query_position: Tensor, feature: Tensor, position: Tensor
    ) -> Tensor:
        """Shapes: (B,Q,C), (Q,C), (B,S,C), (S,C) -> (B,Q,C)"""
        key = feature + position
        query = self.step(query, self.norm1, lambda x: self.attend(x, query_position))
        query = self.step(
            query, self.norm2, lambda x: self.multihead_attn(x + query_position, key, feature)
        )
        return self.step(query, self.norm3, self.feed_forward)


class Encoder(nn.Module):
    """Layers one after the other; with `pre_norm` what they sum up to is normalised at the end."""

    def __init__(
        self,
        num_layers: int,
        dim: int,
        num_heads: int,
        feedforward_dim: int,
        dropout: float,
        pre_norm: bool,
    ):
        super().__init__()
        self.layers = nn.ModuleList(
            EncoderLayer(dim, num_heads, feedforward_dim, dropout, pre_norm)
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(dim) if pre_norm else nn.Identity()

    def forward(self, feature: Tensor, position: Tensor) -> Tensor:
        """Shapes: (B,S,C), (S,C) -> (B,S,C)"""
        for layer in self.layers:
            feature = layer(feature, position)
        return self.norm(feature)


class Decoder(nn.Module):
    """Layers one after the other, from queries of zeros; `norm` is for the result of each."""

    def __init__(
        self,
        num_layers: int,
        dim: int,
        num_heads: int,
        feedforward_dim: int,
        dropout: float,
        pre_norm: bool,
    ):
        super().__init__()
        self.layers = nn.ModuleList(
            DecoderLayer(dim, num_heads, feedforward_dim, dropout, pre_norm)
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, query_position: Tensor, feature: Tensor, position: Tensor) -> list[Tensor]:
        """The queries after each layer.

        Shapes: (Q,C), (B,S,C), (S,C) -> num_layers x (B,Q,C)
        """
        query = torch.zeros_like(query_position).expand(feature.shape[0], -1, -1)
        queries = []
        for layer in self.layers:
            query = layer(query, query_position, feature, position)
            queries.append(self.norm(query))
        return queries
