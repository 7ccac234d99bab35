"""The Swin Transformer (Liu et al. 2021) as a backbone.

B batch, C channels, H W image, h w grid of a stage.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor, nn

from mask2former.layers.checkpointing import recompute_in_backward
from mask2former.modeling.backbone.swin_blocks import PatchMerging, SwinStage


class PatchEmbedding(nn.Module):
    """Each patch of the image becomes a token."""

    def __init__(self, patch_size: int, in_channels: int, dim: int, has_norm: bool):
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_channels, dim, kernel_size=patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(dim) if has_norm else nn.Identity()

    def forward(self, image: Tensor) -> Tensor:
        """Shapes: (B,3,H,W) -> (B,h,w,C)"""
        height, width = image.shape[-2:]
        image = F.pad(image, (0, -width % self.patch_size, 0, -height % self.patch_size))
        return self.norm(self.proj(image).permute(0, 2, 3, 1))


@BACKBONE_REGISTRY.register()
class D2SwinTransformer(Backbone):
    """Stages res2, res3, ... of windowed attention; each halves the grid of the one before.

    Images of any size go in. Stages behind the last feature that is asked for are not made.
    MODEL.BACKBONE.FREEZE_AT belongs to ResNets alone, as in the official code.
    """

    @configurable
    def __init__(
        self,
        *,
        in_channels: int = 3,
        pretrain_img_size: int = 224,
        patch_size: int = 4,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: int = 7,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.3,
        ape: bool = False,
        patch_norm: bool = True,
        out_features: Sequence[str] = ("res2", "res3", "res4", "res5"),
        use_checkpoint: bool = False,
    ):
        """
        Args:
            pretrain_img_size: side of the images for which `ape` has a position each.
            embed_dim: C of the first stage; each stage has twice the channels of the one before.
            depths, num_heads: blocks, and heads of their attention, of each stage.
            window_size: side of a window, in tokens.
            mlp_ratio: hidden channels of a feed-forward network, relative to C.
            qk_scale: of the attention logits; None: 1 / sqrt(channels of a head).
            drop_rate, attn_drop_rate: dropout of layers and of attention.
            drop_path_rate: stochastic depth of the last block; it grows evenly from 0.
            ape: add a learned position to each patch.
            patch_norm: normalise the patches.
            use_checkpoint: keep only the inputs of each block for backward.

        Raises:
            ValueError: the numbers make no network.
        """
        super().__init__()
        stage_dims = [embed_dim * 2**i for i in range(len(depths))]
        names = [f"res{i + 2}" for i in range(len(depths))]
        _check(names, stage_dims, num_heads, out_features)
        if not 0 <= drop_path_rate < 1:
            raise ValueError(
                f"MODEL.SWIN.DROP_PATH_RATE={drop_path_rate}; set it to 0 or more, below 1"
            )
        self._out_features = list(out_features)
        self._out_feature_channels = dict(zip(names, stage_dims))
        self._out_feature_strides = {name: patch_size * 2**i for i, name in enumerate(names)}
        self._size_divisibility = patch_size * 2 ** (len(depths) - 1)
        self.stage_names = names[: 1 + max(names.index(name) for name in out_features)]

        self.patch_embed = PatchEmbedding(patch_size, in_channels, embed_dim, patch_norm)
        self.absolute_pos_embed = None
        if ape:
            side = pretrain_img_size // patch_size
            self.absolute_pos_embed = nn.Parameter(torch.empty(1, embed_dim, side, side))
            nn.init.trunc_normal_(self.absolute_pos_embed, std=0.02)
        self.pos_drop = nn.Dropout(drop_rate)

        num_blocks = sum(depths)
        rates = iter([drop_path_rate * i / max(1, num_blocks - 1) for i in range(num_blocks)])
        self.layers = nn.ModuleList()
        for name, dim, depth, heads in zip(self.stage_names, stage_dims, depths, num_heads):
            stage = SwinStage(
                dim,
                [next(rates) for _ in range(depth)],
                window_size,
                downsample=None if name == self.stage_names[-1] else PatchMerging(dim),
                num_heads=heads,
                mlp_ratio=mlp_ratio,
                qkv_bias=qkv_bias,
                qk_scale=qk_scale,
                dropout=drop_rate,
                attention_dropout=attn_drop_rate,
            )
            if use_checkpoint:
                recompute_in_backward(stage.blocks)
            self.layers.append(stage)
        for index, (name, dim) in enumerate(zip(self.stage_names, stage_dims)):
            if name in out_features:
                self.add_module(f"norm{index}", nn.LayerNorm(dim))

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict:
        swin = cfg.MODEL.SWIN
        return {
            "in_channels": input_shape.channels,
            "pretrain_img_size": swin.PRETRAIN_IMG_SIZE,
            "patch_size": swin.PATCH_SIZE,
            "embed_dim": swin.EMBED_DIM,
            "depths": swin.DEPTHS,
            "num_heads": swin.NUM_HEADS,
            "window_size": swin.WINDOW_SIZE,
            "mlp_ratio": swin.MLP_RATIO,
            "qkv_bias": swin.QKV_BIAS,
            "qk_scale": swin.QK_SCALE,
            "drop_rate": swin.DROP_RATE,
            "attn_drop_rate": swin.ATTN_DROP_RATE,
            "drop_path_rate": swin.DROP_PATH_RATE,
            "ape": swin.APE,
            "patch_norm": swin.PATCH_NORM,
            "out_features": swin.OUT_FEATURES,
            "use_checkpoint": swin.USE_CHECKPOINT,
        }

    @property
    def size_divisibility(self) -> int:
        """The coarsest stride; other sizes are padded within, stage by stage."""
        return self._size_divisibility

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Shapes: (B,3,H,W) -> {name: (B,C,h,w)}"""
        grid = self.patch_embed(image)
        if self.absolute_pos_embed is not None:
            position = F.interpolate(self.absolute_pos_embed, size=grid.shape[1:3], mode="bicubic")
            grid = grid + position.permute(0, 2, 3, 1)
        grid = self.pos_drop(grid)
        features = {}
        for index, (name, stage) in enumerate(zip(self.stage_names, self.layers)):
            if index > 0:
                grid = self.layers[index - 1].downsample(grid)
            grid = stage(grid)
            if name in self._out_features:
                normalized = getattr(self, f"norm{index}")(grid)
                features[name] = normalized.permute(0, 3, 1, 2).contiguous()
        return features


def _check(
    names: Sequence[str],
    stage_dims: Sequence[int],
    num_heads: Sequence[int],
    out_features: Sequence[str],
) -> None:
    if len(num_heads) != len(names):
        raise ValueError(
            f"MODEL.SWIN.NUM_HEADS={list(num_heads)} has {len(num_heads)} stages, but "
            f"MODEL.SWIN.DEPTHS has {len(names)}; give both a number for each stage"
        )
    for dim, heads in zip(stage_dims, num_heads):
        if dim % heads:
            raise ValueError(
                f"MODEL.SWIN.NUM_HEADS={list(num_heads)}, but {dim} channels do not divide into "
                f"{heads} heads; change it, or MODEL.SWIN.EMBED_DIM={stage_dims[0]}"
            )
    unknown = [name for name in out_features if name not in names]
    if unknown or not out_features:
        raise ValueError(
            f"MODEL.SWIN.OUT_FEATURES={list(out_features)}; set it to some of {', '.join(names)}"
        )
