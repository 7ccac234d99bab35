"""DETR's transformer, which MaskFormer takes over (DETR, app. A.3 and fig. 10).

Deformable DETR's encoder has the same layers, with another attention.

B batch, S pixels of the feature map, Q queries, C channels. Parameter names are the official ones.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mask2former.layers.chunks import chunks
from mask2former.layers.transformer import MultiheadAttention, feed_forward_layers, residual


class Layer(nn.Module):
    """What all layers share: attention among themselves, a feed-forward network, the steps."""

    def __init__(
        self,
        attention: nn.Module,
        dim: int,
        feedforward_dim: int,
        dropout: float,
        pre_norm: bool = False,
    ):
        """
        Args:
            dropout: of each step's result and of the hidden layer.
            pre_norm: normalise before each step; else after its sum.
        """
        super().__init__()
        self.self_attn = attention
        self.linear1, self.linear2 = feed_forward_layers(dim, feedforward_dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        self.pre_norm = pre_norm

    def step(self, x: Tensor, norm: nn.Module, f: Callable[[Tensor], Tensor]) -> Tensor:
        return residual(x, lambda x: self.dropout(f(x)), norm, self.pre_norm)

    def attend(self, x: Tensor, position: Tensor) -> Tensor:
        positioned = x + position
        return self.self_attn(positioned, positioned, x)

    def feed_forward(self, x: Tensor, norm: nn.Module) -> Tensor:
        """The step in which each pixel or query is transformed by itself: (B,S,C) -> (B,S,C)

        Without backward nobody needs all of the hidden layer, the largest tensor, at one time.
        """

        def transform(x: Tensor) -> Tensor:
            return self.linear2(self.dropout(F.relu_(self.linear1(x))))

        rows = x.flatten(0, 1)  # or what is changed in place would be a view of its linear layer's
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return self.step(rows, norm, transform).view(x.shape)
        row_bytes = (self.linear1.out_features + 3 * x.shape[-1]) * x.element_size()
        pieces = [self.step(rows[some], norm, transform) for some in chunks(len(rows), row_bytes)]
        return torch.cat(pieces).view(x.shape)


class EncoderLayer(Layer):
    """Pixels look at each other, then each is transformed by itself."""

    def forward(self, feature: Tensor, position: Tensor) -> Tensor:
        """Shapes: (B,S,C), (S,C) -> (B,S,C)"""
        feature = self.step(feature, self.norm1, lambda x: self.attend(x, position))
        return self.feed_forward(feature, self.norm2)


class DecoderLayer(Layer):
    """Queries look at each other, then at the pixels; then each is transformed by itself."""

    def __init__(
        self,
        attention: nn.Module,
        cross_attention: nn.Module,
        dim: int,
        feedforward_dim: int,
        dropout: float,
        pre_norm: bool,
    ):
        super().__init__(attention, dim, feedforward_dim, dropout, pre_norm)
        self.multihead_attn = cross_attention
        self.norm3 = nn.LayerNorm(dim)

    def forward(
        self, query: Tensor, query_position: Tensor, key: Tensor, feature: Tensor
    ) -> Tensor:
        """
        Args:
            key: the pixels' feature plus their positions.
        Shapes: (B,Q,C), (Q,C), (B,S,C), (B,S,C) -> (B,Q,C)
        """
        query = self.step(query, self.norm1, lambda x: self.attend(x, query_position))
        query = self.step(
            query, self.norm2, lambda x: self.multihead_attn(x + query_position, key, feature)
        )
        return self.feed_forward(query, self.norm3)


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
            EncoderLayer(
                MultiheadAttention(dim, num_heads, dropout),
                dim,
                feedforward_dim,
                dropout,
                pre_norm,
            )
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
            DecoderLayer(
                MultiheadAttention(dim, num_heads, dropout),
                MultiheadAttention(dim, num_heads, dropout),
                dim,
                feedforward_dim,
                dropout,
                pre_norm,
            )
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, query_position: Tensor, feature: Tensor, position: Tensor) -> list[Tensor]:
        """The queries after each layer.

        Shapes: (Q,C), (B,S,C), (S,C) -> num_layers x (B,Q,C)
        """
        query = torch.zeros_like(query_position).expand(feature.shape[0], -1, -1)
        key = feature + position  # once for all layers
        queries = []
        for layer in self.layers:
            query = layer(query, query_position, key, feature)
            queries.append(self.norm(query))
        return queries
