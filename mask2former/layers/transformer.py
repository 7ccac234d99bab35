"""What transformers are made of, and the layers of Mask2Former's decoder.

B batch, Q queries, K keys, C channels. Parameter names are those of torch.nn.MultiheadAttention
and of the official layers, so that official checkpoints load.
"""

import itertools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MultiheadAttention(nn.Module):
    """Scaled dot-product attention in several heads, with a mask that all heads share.

    torch's own module wants the mask repeated for each head and returns the attention weights
    unless told otherwise; either keeps it from the fused kernels.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float = 0.0):
        """
        Args:
            dropout: share of the attention weights that training leaves out.
        """
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"{dim} channels do not divide into {num_heads} attention heads")
        self.num_heads = num_heads
        self.dropout = dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))  # query, key, value
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, attn_blocked: Tensor | None = None
    ) -> Tensor:
        """`attn_blocked` is True where a query must not look; no row of it may be all True.

        Shapes: (B,Q,C), (B,K,C), (B,K,C), (B,Q,K) -> (B,Q,C)
        """
        heads = [
            F.linear(x, weight, bias).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for x, weight, bias in zip(
                (query, key, value), self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
            )
        ]  # 3 x (B, heads, Q or K, C / heads)
        may_attend = None if attn_blocked is None else ~attn_blocked[:, None]
        attended = F.scaled_dot_product_attention(
            *heads, attn_mask=may_attend, dropout_p=self.dropout if self.training else 0.0
        )
        return self.out_proj(attended.transpose(1, 2).flatten(2))


def residual(x: Tensor, f: Callable[[Tensor], Tensor], norm: nn.Module, pre_norm: bool) -> Tensor:
    """x + f(x), normalised after the sum or, with `pre_norm`, before f."""
    return x + f(norm(x)) if pre_norm else norm(x + f(x))


def feed_forward_layers(dim: int, hidden_dim: int) -> tuple[nn.Linear, nn.Linear]:
    """To the hidden channels and back, initialised as in DETR."""
    layers = nn.Linear(dim, hidden_dim), nn.Linear(hidden_dim, dim)
    for layer in layers:
        nn.init.xavier_uniform_(layer.weight)
    return layers


class _ResidualBlock(nn.Module):
    def __init__(self, dim: int, pre_norm: bool):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.pre_norm = pre_norm

    def residual(self, x: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
        return residual(x, f, self.norm, self.pre_norm)


class CrossAttentionLayer(_ResidualBlock):
    """Queries look at the pixels of one feature level, each within its own mask."""

    def __init__(self, dim: int, num_heads: int, pre_norm: bool):
        super().__init__(dim, pre_norm)
        self.multihead_attn = MultiheadAttention(dim, num_heads)

    def forward(
        self,
        query: Tensor,
        query_position: Tensor,
        key: Tensor,
        feature: Tensor,
        attn_blocked: Tensor,
    ) -> Tensor:
        """
        Args:
            key: the pixels' feature plus their positions.
        Shapes: (B,Q,C), (Q,C), (B,K,C), (B,K,C), (B,Q,K) -> (B,Q,C)
        """
        return self.residual(
            query,
            lambda x: self.multihead_attn(x + query_position, key, feature, attn_blocked),
        )


class SelfAttentionLayer(_ResidualBlock):
    """Queries look at each other."""

    def __init__(self, dim: int, num_heads: int, pre_norm: bool):
        super().__init__(dim, pre_norm)
        self.self_attn = MultiheadAttention(dim, num_heads)

    def forward(self, query: Tensor, query_position: Tensor) -> Tensor:
        """Shapes: (B,Q,C), (Q,C) -> (B,Q,C)"""

        def attend(x: Tensor) -> Tensor:
            positioned = x + query_position
            return self.self_attn(positioned, positioned, x)

        return self.residual(query, attend)


class FFNLayer(_ResidualBlock):
    """Two linear layers with a ReLU between them."""

    def __init__(self, dim: int, hidden_dim: int, pre_norm: bool):
        super().__init__(dim, pre_norm)
        self.linear1, self.linear2 = feed_forward_layers(dim, hidden_dim)

    def forward(self, query: Tensor) -> Tensor:
        """Shapes: (B,Q,C) -> (B,Q,C)"""
        return self.residual(query, lambda x: self.linear2(F.relu(self.linear1(x))))


class MLP(nn.Module):
    """`num_layers` linear layers with ReLUs between them."""

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int, num_layers: int):
        super().__init__()
        dims = [in_dim, *[hidden_dim] * (num_layers - 1), out_dim]
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in itertools.pairwise(dims))

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: (..., in_dim) -> (..., out_dim)"""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)
