"""The transformer decoder with masked attention (paper, sec. 3.2).

B batch, Q queries, C channels, K classes, H W the stride-4 grid, h w the grid of a feature level.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d
from fvcore.nn.weight_init import c2_xavier_fill
from torch import Tensor, nn

from mask2former.layers.checkpointing import recompute_in_backward
from mask2former.layers.mask_products import mask_products
from mask2former.layers.position_encoding import pixels_and_positions
from mask2former.layers.transformer import MLP, CrossAttentionLayer, FFNLayer, SelfAttentionLayer
from mask2former.modeling.transformer_decoder.build import TRANSFORMER_DECODER_REGISTRY
from mask2former.modeling.transformer_decoder.predictions import QueryPredictor

NUM_FEATURE_LEVELS = 3  # the layers take turns with them (paper, sec. 3.2.2)


def attention_blocked_by(mask_logits: Tensor) -> Tensor:
    """Where masked attention keeps a query from looking: outside of its predicted mask.

    A query whose mask is empty may look everywhere; otherwise its softmax would have no terms.

    Shapes: (B,Q,h,w) -> (B,Q,h*w) bool
    """
    outside = mask_logits.flatten(2) < 0  # a probability below one half
    return outside & ~outside.all(dim=-1, keepdim=True)


@TRANSFORMER_DECODER_REGISTRY.register()
class MultiScaleMaskedTransformerDecoder(QueryPredictor):
    """Refines learned queries layer by layer; each layer looks at one feature level."""

    _version = 2  # official code takes checkpoints of an earlier one for those below

    @configurable
    def __init__(
        self,
        in_channels: int,
        mask_classification: bool = True,
        *,
        num_classes: int,
        hidden_dim: int,
        num_queries: int,
        nheads: int,
        dim_feedforward: int,
        dec_layers: int,
        pre_norm: bool,
        mask_dim: int,
        enforce_input_project: bool,
        use_checkpoint: bool = False,
    ):
        """
        Args:
            in_channels: channels of the feature levels.
            mask_classification: must be True: each query predicts a class and a mask.
            hidden_dim: C.
            mask_dim: channels of the pixel feature.
            enforce_input_project: a 1x1 convolution on each level even if in_channels is C.
            use_checkpoint: keep only the inputs of each layer for backward.
        """
        super().__init__()
        if not mask_classification:
            raise ValueError("mask_classification=False; this decoder needs it True")
        self.transformer_cross_attention_layers = nn.ModuleList(
            CrossAttentionLayer(hidden_dim, nheads, pre_norm) for _ in range(dec_layers)
        )
        self.transformer_self_attention_layers = nn.ModuleList(
            SelfAttentionLayer(hidden_dim, nheads, pre_norm) for _ in range(dec_layers)
        )
        self.transformer_ffn_layers = nn.ModuleList(
            FFNLayer(hidden_dim, dim_feedforward, pre_norm) for _ in range(dec_layers)
        )
        if use_checkpoint:
            recompute_in_backward(self.transformer_cross_attention_layers)
            recompute_in_backward(self.transformer_self_attention_layers)
            recompute_in_backward(self.transformer_ffn_layers)
        self.decoder_norm = nn.LayerNorm(hidden_dim)
        self.query_feat = nn.Embedding(num_queries, hidden_dim)
        self.query_embed = nn.Embedding(num_queries, hidden_dim)  # the queries' positions
        self.level_embed = nn.Embedding(NUM_FEATURE_LEVELS, hidden_dim)
        self.input_proj = nn.ModuleList(nn.Identity() for _ in range(NUM_FEATURE_LEVELS))
        if in_channels != hidden_dim or enforce_input_project:
            self.input_proj = nn.ModuleList(
                Conv2d(in_channels, hidden_dim, kernel_size=1) for _ in range(NUM_FEATURE_LEVELS)
            )
            for projection in self.input_proj:
                c2_xavier_fill(projection)
        self.class_embed = nn.Linear(hidden_dim, num_classes + 1)  # the last is "no object"
        self.mask_embed = MLP(hidden_dim, hidden_dim, mask_dim, num_layers=3)

    @classmethod
    def from_config(cls, cfg: CfgNode, in_channels: int, mask_classification: bool) -> dict:
        mask_former = cfg.MODEL.MASK_FORMER
        if mask_former.TRANSFORMER_IN_FEATURE != "multi_scale_pixel_decoder":
            raise ValueError(
                f"MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE={mask_former.TRANSFORMER_IN_FEATURE!r}, "
                "but MultiScaleMaskedTransformerDecoder looks at multi_scale_pixel_decoder; set it "
                "to that, or, for a MaskFormer (v1) config, TRANSFORMER_DECODER_NAME to "
                "StandardTransformerDecoder and MASK_LOSS to whole_masks"
            )
        if mask_former.DEC_LAYERS < 1:
            raise ValueError(
                f"MODEL.MASK_FORMER.DEC_LAYERS={mask_former.DEC_LAYERS}; it counts the predictions "
                "of the learned queries as well: set it to 1 plus the number of layers"
            )
        return {
            "in_channels": in_channels,
            "mask_classification": mask_classification,
            "num_classes": cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
            "hidden_dim": mask_former.HIDDEN_DIM,
            "num_queries": mask_former.NUM_OBJECT_QUERIES,
            "nheads": mask_former.NHEADS,
            "dim_feedforward": mask_former.DIM_FEEDFORWARD,
            # The key counts supervised predictions; the first is of the queries themselves.
            "dec_layers": mask_former.DEC_LAYERS - 1,
            "pre_norm": mask_former.PRE_NORM,
            "mask_dim": cfg.MODEL.SEM_SEG_HEAD.MASK_DIM,
            "enforce_input_project": mask_former.ENFORCE_INPUT_PROJ,
            "use_checkpoint": mask_former.USE_CHECKPOINT,
        }

    def forward(self, multi_scale_features: Sequence[Tensor], pixel_feature: Tensor) -> dict:
        """Class and mask of every query, after each layer.

        Shapes: 3 x (B,C,h,w), (B,mask_dim,H,W) ->
            {"pred_logits": (B,Q,K+1), "pred_masks": (B,Q,H,W), "aux_outputs": [the same, ...]}
        """
        pixels, positions = zip(
            *(
                pixels_and_positions(project(feature))
                for project, feature in zip(self.input_proj, multi_scale_features)
            )
        )
        levels = [p + level for p, level in zip(pixels, self.level_embed.weight)]  # (B,h*w,C)
        keys = [level + position for level, position in zip(levels, positions)]
        # Products of the resized feature are the resized products, which the official code takes:
        # so no mask has to be made at full size before attention can be blocked by it.
        resized = [
            F.interpolate(
                pixel_feature.detach(), feature.shape[-2:], mode="bilinear", align_corners=False
            )
            for feature in multi_scale_features
        ]
        query_position = self.query_embed.weight
        query = self.query_feat.weight.expand(pixel_feature.shape[0], -1, -1)

        predictions = [self.predict(self.decoder_norm(query), pixel_feature)]
        for index, (cross_attention, self_attention, ffn) in enumerate(
            zip(
                self.transformer_cross_attention_layers,
                self.transformer_self_attention_layers,
                self.transformer_ffn_layers,
            )
        ):
            level = index % NUM_FEATURE_LEVELS
            with torch.no_grad():
                masks = mask_products(predictions[-1]["mask_embed"], resized[level])
                attn_blocked = attention_blocked_by(masks)
            query = cross_attention(query, query_position, keys[level], levels[level], attn_blocked)
            query = ffn(self_attention(query, query_position))
            predictions.append(self.predict(self.decoder_norm(query), pixel_feature))
        return self.join(predictions)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        # Early official checkpoints call the query features static_query.
        for key in [k for k in state_dict if k.startswith(f"{prefix}static_query.")]:
            state_dict[key.replace("static_query", "query_feat")] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args)
