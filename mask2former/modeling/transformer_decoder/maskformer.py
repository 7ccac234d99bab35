"""MaskFormer's transformer decoder: DETR's, whose queries all look at one feature map.

B batch, Q queries, C channels, K classes, H W the grid of the pixel feature, h w that of the
feature map that is looked at.
"""

from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d
from fvcore.nn.weight_init import c2_xavier_fill
from torch import Tensor, nn

from mask2former.layers.checkpointing import recompute_in_backward
from mask2former.layers.detr import Decoder, Encoder
from mask2former.layers.position_encoding import pixels_and_positions
from mask2former.layers.transformer import MLP
from mask2former.modeling.transformer_decoder.build import TRANSFORMER_DECODER_REGISTRY
from mask2former.modeling.transformer_decoder.predictions import QueryPredictor


@TRANSFORMER_DECODER_REGISTRY.register()
class StandardTransformerDecoder(QueryPredictor):
    """Learned queries become classes and mask embeddings (MaskFormer, sec. 3.4)."""

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
        dropout: float,
        dim_feedforward: int,
        enc_layers: int,
        dec_layers: int,
        pre_norm: bool,
        deep_supervision: bool,
        mask_dim: int,
        enforce_input_project: bool,
        use_checkpoint: bool = False,
    ):
        """
        Args:
            in_channels: channels of the feature map.
            mask_classification: whether queries predict classes besides their masks.
            hidden_dim: C.
            enc_layers: layers of an encoder that the feature map goes through beforehand; may be 0.
            deep_supervision: predict after each layer, else after the last only.
            mask_dim: channels of the pixel feature.
            enforce_input_project: a 1x1 convolution on the feature map even if in_channels is C.
            use_checkpoint: keep only the inputs of each layer for backward.
        """
        super().__init__()
        sizes = (hidden_dim, nheads, dim_feedforward, dropout, pre_norm)
        self.transformer = nn.ModuleDict(
            {"encoder": Encoder(enc_layers, *sizes), "decoder": Decoder(dec_layers, *sizes)}
        )  # official keys
        if use_checkpoint:
            for part in self.transformer.values():
                recompute_in_backward(part.layers)
        self.query_embed = nn.Embedding(num_queries, hidden_dim)  # the queries' positions
        self.input_proj = nn.Identity()
        if in_channels != hidden_dim or enforce_input_project:
            self.input_proj = Conv2d(in_channels, hidden_dim, kernel_size=1)
            c2_xavier_fill(self.input_proj)
        self.deep_supervision = deep_supervision
        self.mask_classification = mask_classification
        if mask_classification:
            self.class_embed = nn.Linear(hidden_dim, num_classes + 1)  # the last is "no object"
        self.mask_embed = MLP(hidden_dim, hidden_dim, mask_dim, num_layers=3)

    @classmethod
    def from_config(cls, cfg: CfgNode, in_channels: int, mask_classification: bool) -> dict:
        mask_former = cfg.MODEL.MASK_FORMER
        if mask_former.TRANSFORMER_IN_FEATURE == "multi_scale_pixel_decoder":
            raise ValueError(
                "MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE='multi_scale_pixel_decoder', but "
                "StandardTransformerDecoder looks at one feature map; set it to res5, or "
                "TRANSFORMER_DECODER_NAME to MultiScaleMaskedTransformerDecoder"
            )
        if mask_former.DEC_LAYERS < 1:
            raise ValueError(
                f"MODEL.MASK_FORMER.DEC_LAYERS={mask_former.DEC_LAYERS}; set it to 1 or more"
            )
        return {
            "in_channels": in_channels,
            "mask_classification": mask_classification,
            "num_classes": cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
            "hidden_dim": mask_former.HIDDEN_DIM,
            "num_queries": mask_former.NUM_OBJECT_QUERIES,
            "nheads": mask_former.NHEADS,
            "dropout": mask_former.DROPOUT,
            "dim_feedforward": mask_former.DIM_FEEDFORWARD,
            "enc_layers": mask_former.ENC_LAYERS,
            "dec_layers": mask_former.DEC_LAYERS,
            "pre_norm": mask_former.PRE_NORM,
            "deep_supervision": mask_former.DEEP_SUPERVISION,
            "mask_dim": cfg.MODEL.SEM_SEG_HEAD.MASK_DIM,
            "enforce_input_project": mask_former.ENFORCE_INPUT_PROJ,
            "use_checkpoint": mask_former.USE_CHECKPOINT,
        }

    def forward(self, feature: Tensor, pixel_feature: Tensor) -> dict:
        """Mask, and class if there are any, of every query, after each supervised layer.

        Shapes: (B,*,h,w), (B,mask_dim,H,W) ->
            {"pred_logits": (B,Q,K+1), "pred_masks": (B,Q,H,W), "aux_outputs": [the same, ...]}
        """
        pixels, position = pixels_and_positions(self.input_proj(feature))
        pixels = self.transformer["encoder"](pixels, position)
        queries = self.transformer["decoder"](self.query_embed.weight, pixels, position)
        if not self.deep_supervision:
            queries = queries[-1:]
        return self.join([self.predict(query, pixel_feature) for query in queries])
