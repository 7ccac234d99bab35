"""Attention within shifted windows (Swin Transformer, Liu et al. 2021, sec. 3.2).

B batch, C channels, H W grid of tokens, M side of a window, N = M * M its tokens, W windows of a
grid. Parameter names are the official ones.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# What published weights were trained with in place of minus infinity.
BLOCKED_LOGIT = -100.0


def to_windows(grid: Tensor, window_size: int) -> Tensor:
    """Cut a grid, whose sides are multiples of M, into windows: (B,H,W,C) -> (B*W,N,C)"""
    tiles = grid.unflatten(2, (-1, window_size)).unflatten(1, (-1, window_size))
    return tiles.transpose(2, 3).reshape(-1, window_size**2, grid.shape[-1])


def from_windows(windows: Tensor, size: tuple[int, int], window_size: int) -> Tensor:
    """The way back from `to_windows`: (B*W,N,C), (H,W) -> (B,H,W,C)"""
    height, width = size
    shape = (-1, height // window_size, width // window_size, window_size, window_size)
    tiles = windows.reshape(*shape, windows.shape[-1])
    return tiles.transpose(2, 3).reshape(-1, height, width, windows.shape[-1])


def relative_position_index(window_size: int) -> Tensor:
    """For two tokens of a window, the row of the bias table for the offset between them: (N,N)."""
    place = torch.arange(window_size)
    offset = place[:, None] - place + window_size - 1  # (M,M), from 0
    index = offset[:, None, :, None] * (2 * window_size - 1) + offset[:, None]  # (M,M,M,M)
    return index.reshape(window_size**2, window_size**2)


def blocked_by_shift(
    size: tuple[int, int], window_size: int, shift: int, device: torch.device
) -> Tensor:
    """Which tokens of a window must not look at each other in a grid that was rolled by `shift`.

    Rolling brings the first rows and columns to the end, beside others than in the image.

    Shapes: (H,W) -> (W,N,N) bool
    """
    bands = []
    for length in size:
        place = torch.arange(length, device=device)
        bands.append((place >= length - window_size).int() + (place >= length - shift).int())
    region = 3 * bands[0][:, None] + bands[1]  # (H,W)
    region = to_windows(region[None, :, :, None], window_size)[..., 0]  # (W,N)
    return region[:, :, None] != region[:, None]


class WindowAttention(nn.Module):
    """Attention within windows, with a learned bias for each offset between two tokens."""

    def __init__(
        self,
        dim: int,
        window_size: int,
        num_heads: int,
        *,
        qkv_bias: bool,
        qk_scale: float | None,
        attention_dropout: float,
        dropout: float,
    ):
        """
        Args:
            qk_scale: of the logits; None: 1 / sqrt(channels of a head).
        """
        super().__init__()
        self.num_heads = num_heads
        self.qk_scale = qk_scale
        self.attention_dropout = attention_dropout
        self.relative_position_bias_table = nn.Parameter(
            torch.empty((2 * window_size - 1) ** 2, num_heads)
        )
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("relative_position_index", relative_position_index(window_size))
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(dropout)

    def forward(self, windows: Tensor, attn_blocked: Tensor | None = None) -> Tensor:
        """Shapes: (B*W,N,C), (W,N,N) -> (B*W,N,C)"""
        heads = self.qkv(windows).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        bias = self.relative_position_bias_table[self.relative_position_index]
        bias = bias.permute(2, 0, 1)[None]  # (1, heads, N, N)
        if attn_blocked is not None:
            bias = bias + BLOCKED_LOGIT * attn_blocked[:, None]  # (W, heads, N, N)
        # The windows of an image count as heads, so that no image has a copy of the bias.
        num_masks = bias.shape[0] * bias.shape[1]
        query, key, value = (x.reshape(-1, num_masks, *x.shape[-2:]) for x in heads)
        attended = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=bias.flatten(0, 1)[None].to(query.dtype),
            dropout_p=self.attention_dropout if self.training else 0.0,
            scale=self.qk_scale,
        )
        attended = attended.reshape(-1, self.num_heads, *attended.shape[-2:])
        return self.proj_drop(self.proj(attended.transpose(1, 2).flatten(2)))


class DropPath(nn.Module):
    """Stochastic depth: zero for a random share `rate` of the samples (Huang et al. 2016)."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: (B,...) -> (B,...)"""
        if self.rate == 0 or not self.training:
            return x
        kept = x.new_empty(x.shape[0], *[1] * (x.dim() - 1)).bernoulli_(1 - self.rate)
        return x * (kept / (1 - self.rate))


class FeedForward(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, dim: int, hidden_dim: int, dropout: float):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: (...,C) -> (...,C)"""
        return self.drop(self.fc2(self.drop(F.gelu(self.fc1(x)))))


class SwinBlock(nn.Module):
    """Window attention, then a feed-forward network, each added to its input."""

    def __init__(
        self,
        dim: int,
        window_size: int,
        shift: int,
        num_heads: int,
        *,
        mlp_ratio: float,
        dropout: float,
        drop_path: float,
        **attention: bool | float | None,
    ):
        """
        Args:
            shift: rows and columns by which the grid is rolled before it is cut; 0: not at all.
            attention: for WindowAttention.
        """
        super().__init__()
        self.window_size = window_size
        self.shift = shift
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, window_size, num_heads, dropout=dropout, **attention)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = FeedForward(dim, int(dim * mlp_ratio), dropout)

    def forward(self, grid: Tensor, attn_blocked: Tensor) -> Tensor:
        """Shapes: (B,H,W,C), (W,N,N) of `blocked_by_shift` -> (B,H,W,C)"""
        grid = grid + self.drop_path(self.attend(self.norm1(grid), attn_blocked))
        return grid + self.drop_path(self.mlp(self.norm2(grid)))

    def attend(self, grid: Tensor, attn_blocked: Tensor) -> Tensor:
        """Shapes: as forward"""
        height, width = grid.shape[1:3]
        shift = self.shift
        # Padding takes part in the attention, as it does in the official code.
        padded = pad_to_multiple(grid, self.window_size)
        size = tuple(padded.shape[1:3])
        if shift:
            padded = padded.roll((-shift, -shift), (1, 2))
        windows = to_windows(padded, self.window_size)
        attended = self.attn(windows, attn_blocked if shift else None)
        padded = from_windows(attended, size, self.window_size)
        if shift:
            padded = padded.roll((shift, shift), (1, 2))
        return padded[:, :height, :width]


class PatchMerging(nn.Module):
    """Each 2x2 tokens become one of twice the channels."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, grid: Tensor) -> Tensor:
        """Shapes: (B,H,W,C) -> (B,ceil(H/2),ceil(W/2),2*C)"""
        grid = pad_to_multiple(grid, 2)
        corners = [grid[:, y::2, x::2] for x in (0, 1) for y in (0, 1)]  # column by column
        return self.reduction(self.norm(torch.cat(corners, dim=-1)))


class SwinStage(nn.Module):
    """Blocks with and without shift by turns, on one grid."""

    def __init__(
        self,
        dim: int,
        drop_paths: Sequence[float],
        window_size: int,
        *,
        downsample: nn.Module | None,
        **block: int | float | bool | None,
    ):
        """
        Args:
            drop_paths: of each block.
            downsample: what leads to the next stage; kept here for its official name only.
            block: for SwinBlock.
        """
        super().__init__()
        self.window_size = window_size
        self.shift = window_size // 2
        self.blocks = nn.ModuleList(
            SwinBlock(dim, window_size, self.shift * (i % 2), drop_path=rate, **block)
            for i, rate in enumerate(drop_paths)
        )
        self.downsample = downsample

    def forward(self, grid: Tensor) -> Tensor:
        """Shapes: (B,H,W,C) -> (B,H,W,C)"""
        size = tuple(n + -n % self.window_size for n in grid.shape[1:3])
        attn_blocked = blocked_by_shift(size, self.window_size, self.shift, grid.device)
        for block in self.blocks:
            grid = block(grid, attn_blocked)
        return grid


def pad_to_multiple(grid: Tensor, factor: int) -> Tensor:
    """Zeros below and on the right until H and W are multiples: (B,H,W,C) -> (B,H',W',C)"""
    height, width = grid.shape[1:3]
    return F.pad(grid, (0, 0, 0, -width % factor, 0, -height % factor))
