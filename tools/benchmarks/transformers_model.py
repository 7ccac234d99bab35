"""Mask2Former of Hugging Face transformers, with our weights, to do what our model does.

Our normalisation, and after the network masks grown to the picture and turned into class maps, are
done around it, as whoever uses it does. (Its own post-processing makes maps of 384x384 first.)
"""

import importlib.util
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.pictures import Picture

if TYPE_CHECKING:
    from detectron2.config import CfgNode

DEPTHS = {
    18: ("basic", [2, 2, 2, 2]),
    34: ("basic", [3, 4, 6, 3]),
    50: ("bottleneck", [3, 4, 6, 3]),
    101: ("bottleneck", [3, 4, 23, 3]),
    152: ("bottleneck", [3, 8, 36, 3]),
}

PIXELS, QUERIES = "model.pixel_level_module.", "model.transformer_module."

# From an official name to that of transformers, one after the other.
NAMES: list[tuple[str, str | Callable[[re.Match], str]]] = [
    (r"^backbone\.stem\.conv1", PIXELS + "encoder.embedder.embedder"),
    (
        r"^backbone\.res(\d)\.(\d+)",
        lambda m: f"{PIXELS}encoder.encoder.stages.{int(m[1]) - 2}.layers.{m[2]}",
    ),
    (r"(layers\.\d+)\.conv(\d)", lambda m: f"{m[1]}.layer.{int(m[2]) - 1}"),
    (r"(encoder\.e.*)\.norm\.", r"\1.normalization."),
    (r"(encoder\.e.*(?:embedder|shortcut|layer\.\d))\.weight", r"\1.convolution.weight"),
    (r"^sem_seg_head\.pixel_decoder\.", PIXELS + "decoder."),
    (r"decoder\.transformer\.", "decoder."),
    (r"\.input_proj\.", ".input_projections."),
    (r"(adapter|layer)_(\d)\.norm\.", r"\1_\2.1."),
    (r"(adapter|layer)_(\d)\.(weight|bias)", r"\1_\2.0.\3"),
    (r"\.mask_features\.", ".mask_projection."),
    (r"(encoder\.layers\.\d+)\.norm1", r"\1.self_attn_layer_norm"),
    (r"(encoder\.layers\.\d+)\.norm2", r"\1.final_layer_norm"),
    (r"^sem_seg_head\.predictor\.class_embed\.", "class_predictor."),
    (r"^sem_seg_head\.predictor\.", QUERIES),
    (
        r"transformer_(self|cross)_attention_layers\.(\d+)\.norm",
        r"decoder.layers.\2.\1_attn_layer_norm",
    ),
    (r"transformer_(self|cross)_attention_layers\.(\d+)\.\w+", r"decoder.layers.\2.\1_attn"),
    (r"transformer_ffn_layers\.(\d+)\.norm", r"decoder.layers.\1.final_layer_norm"),
    (r"transformer_ffn_layers\.(\d+)", r"decoder.layers.\1"),
    (r"\.linear(\d)\.", r".fc\1."),
    (r"\.decoder_norm\.", ".decoder.layernorm."),
    (r"\.query_feat\.", ".queries_features."),
    (r"\.query_embed\.", ".queries_embedder."),
    (r"\.mask_embed\.layers\.(\d)\.", r".decoder.mask_predictor.mask_embedder.\1.0."),
]


class Theirs(NamedTuple):
    """What to build, as plain values."""

    config: dict[str, Any]  # of Mask2FormerConfig
    backbone: dict[str, Any]  # of ResNetConfig
    pixel_mean: list[float]
    pixel_std: list[float]
    base_lr: float
    weight_decay: float
    max_norm: float  # of all gradients; 0: not clipped
    half: bool = False  # autocast to bfloat16
    compiled: bool = False


def why_not(cfg: "CfgNode") -> str:
    """What keeps transformers from being measured with this config; empty if nothing does."""
    model, head = cfg.MODEL, cfg.MODEL.SEM_SEG_HEAD
    if importlib.util.find_spec("transformers") is None:
        return "it is not installed (pip install transformers)"
    parts = (
        model.BACKBONE.NAME,
        head.PIXEL_DECODER_NAME,
        model.MASK_FORMER.TRANSFORMER_DECODER_NAME,
    )
    if parts != (
        "build_resnet_backbone",
        "MSDeformAttnPixelDecoder",
        "MultiScaleMaskedTransformerDecoder",
    ):
        return "names of weights are known for Mask2Former on a ResNet only"
    if model.RESNETS.STRIDE_IN_1X1 or model.RESNETS.RES5_DILATION != 1 or head.NORM != "GN":
        return "its ResNet and its norms are those of the official configs only"
    return ""


def describe(cfg: "CfgNode") -> Theirs:
    """Its settings for the model of a config that `why_not` has nothing against."""
    model, former, head = cfg.MODEL, cfg.MODEL.MASK_FORMER, cfg.MODEL.SEM_SEG_HEAD
    layer_type, depths = DEPTHS[model.RESNETS.DEPTH]
    clip = cfg.SOLVER.CLIP_GRADIENTS
    return Theirs(
        {
            "feature_size": head.CONVS_DIM,
            "mask_feature_size": head.MASK_DIM,
            "hidden_dim": former.HIDDEN_DIM,
            "encoder_layers": head.TRANSFORMER_ENC_LAYERS,
            "decoder_layers": former.DEC_LAYERS,
            "num_attention_heads": former.NHEADS,
            "dim_feedforward": former.DIM_FEEDFORWARD,
            "dropout": former.DROPOUT,
            "num_queries": former.NUM_OBJECT_QUERIES,
            "num_labels": head.NUM_CLASSES,
            "no_object_weight": former.NO_OBJECT_WEIGHT,
            "class_weight": former.CLASS_WEIGHT,
            "mask_weight": former.MASK_WEIGHT,
            "dice_weight": former.DICE_WEIGHT,
            "train_num_points": former.TRAIN_NUM_POINTS,
            "oversample_ratio": former.OVERSAMPLE_RATIO,
            "importance_sample_ratio": former.IMPORTANCE_SAMPLE_RATIO,
        },
        {
            "layer_type": layer_type,
            "depths": depths,
            "embedding_size": model.RESNETS.STEM_OUT_CHANNELS,
            "hidden_sizes": [model.RESNETS.RES2_OUT_CHANNELS * 2**i for i in range(4)],
            "out_features": ["stage1", "stage2", "stage3", "stage4"],
        },
        list(model.PIXEL_MEAN),
        list(model.PIXEL_STD),
        cfg.SOLVER.BASE_LR,
        cfg.SOLVER.WEIGHT_DECAY,
        clip.CLIP_VALUE if clip.ENABLED else 0.0,
    )


def name_in_transformers(name: str) -> str:
    for pattern, replacement in NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def weights_in_transformers(weights: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Its names with the weights of a model with the official ones."""
    for official, tensor in weights.items():
        name = name_in_transformers(official)
        joined = re.fullmatch(r"(.*\.self_attn)\.in_proj_(weight|bias)", name)
        if joined:
            for part, share in zip("qkv", tensor.chunk(3)):
                yield f"{joined[1]}.{part}_proj.{joined[2]}", share
        else:
            yield name, tensor


def build_network(theirs: Theirs, weights: dict[str, Tensor] | None = None) -> nn.Module:
    """On the CPU; with random weights if none are given."""
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, ResNetConfig
    from transformers.utils import logging

    logging.set_verbosity_error()  # it warns of backbones that it has no checkpoints of
    config = Mask2FormerConfig(backbone_config=ResNetConfig(**theirs.backbone), **theirs.config)
    network = Mask2FormerForUniversalSegmentation(config)
    if weights is not None:
        network.load_state_dict(dict(weights_in_transformers(weights)))
    return network


class TheirModel:
    """Ready to be run on a batch of pictures, each of the same size."""

    def __init__(
        self,
        device: str,
        theirs: Theirs,
        pictures: list[Picture],
        weights: dict[str, Tensor] | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.theirs = theirs
        self.pictures = pictures
        self.network = build_network(theirs, weights).to(self.device)
        self.forward = torch.compile(self.network) if theirs.compiled else self.network
        self.mean, self.std = (
            torch.tensor(x, device=self.device).view(-1, 1, 1)
            for x in (theirs.pixel_mean, theirs.pixel_std)
        )

    def precision(self) -> AbstractContextManager:
        half = self.theirs.half
        return torch.autocast(self.device.type, torch.bfloat16) if half else nullcontext()

    def pixel_values(self) -> Tensor:
        images = [(p.image.to(self.device) - self.mean) / self.std for p in self.pictures]
        return torch.stack(images)

    @torch.no_grad()
    def predict(self) -> tuple[Tensor, Tensor]:
        """Shapes: -> class logits (B,Q,K+1), mask logits (B,Q,H/4,W/4)"""
        with self.precision():
            outputs = self.forward(pixel_values=self.pixel_values())
        return outputs.class_queries_logits.float(), outputs.masks_queries_logits.float()

    @torch.no_grad()
    def infer(self) -> list[Tensor]:
        """The score of each class at each pixel, of each picture: (K,H,W)."""
        class_logits, mask_logits = self.predict()
        scores = []
        for picture, classes, masks in zip(self.pictures, class_logits, mask_logits):
            size = picture.image.shape[-2:]
            grown = F.interpolate(masks[None], size, mode="bilinear", align_corners=False)[0]
            weights = classes.softmax(-1)[:, :-1]
            scores.append(torch.einsum("qc,qhw->chw", weights, grown.sigmoid()))
        return scores


def inference(
    device: str, theirs: Theirs, pictures: list[Picture], weights: dict | None = None
) -> Callable[[], list[Tensor]]:
    """What runs the network, and makes class maps of what it says."""
    model = TheirModel(device, theirs, pictures, weights)
    model.network.eval()
    return model.infer


def training_step(
    device: str, theirs: Theirs, pictures: list[Picture], weights: dict | None = None
) -> Callable[[], float]:
    """What runs forward, losses, backward and AdamW once; returns the loss."""
    model = TheirModel(device, theirs, pictures, weights)
    model.network.train()
    parameters = list(model.network.parameters())
    optimizer = torch.optim.AdamW(parameters, theirs.base_lr, weight_decay=theirs.weight_decay)

    def run() -> float:
        optimizer.zero_grad()
        with model.precision():
            loss = model.forward(
                pixel_values=model.pixel_values(),
                mask_labels=[p.masks.float().to(model.device) for p in pictures],
                class_labels=[p.classes.to(model.device) for p in pictures],
            ).loss
        loss.backward()
        if theirs.max_norm:
            nn.utils.clip_grad_norm_(parameters, theirs.max_norm)
        optimizer.step()
        return loss.item()

    return run
