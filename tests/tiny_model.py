"""A Mask2Former small enough for tests, with all of its parts: 64 channels, 10 queries."""

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.projects.deeplab import add_deeplab_config
from detectron2.structures import Instances

from mask2former import modeling  # noqa: F401  (registers the model)
from mask2former.config import add_maskformer2_config
from mask2former.layers.label_masks import LabelMasks
from mask2former.layers.run_length_masks import RunLengthMasks
from mask2former.layers.run_lengths import counts_of, encode


def tiny_config(*overrides) -> CfgNode:
    cfg = get_cfg()
    add_deeplab_config(cfg)
    add_maskformer2_config(cfg)
    cfg.merge_from_list(
        [
            *("MODEL.DEVICE", "cpu"),
            *("MODEL.META_ARCHITECTURE", "MaskFormer"),
            *("MODEL.BACKBONE.NAME", "build_resnet_backbone"),
            *("MODEL.BACKBONE.FREEZE_AT", 0),
            *("MODEL.RESNETS.DEPTH", 18),
            *("MODEL.RESNETS.RES2_OUT_CHANNELS", 64),
            *("MODEL.RESNETS.OUT_FEATURES", ["res2", "res3", "res4", "res5"]),
            *("MODEL.PIXEL_MEAN", [123.675, 116.28, 103.53]),
            *("MODEL.PIXEL_STD", [58.395, 57.12, 57.375]),
            *("MODEL.SEM_SEG_HEAD.NAME", "MaskFormerHead"),
            *("MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME", "MSDeformAttnPixelDecoder"),
            *("MODEL.SEM_SEG_HEAD.IN_FEATURES", ["res2", "res3", "res4", "res5"]),
            *("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 5),
            *("MODEL.SEM_SEG_HEAD.CONVS_DIM", 64),
            *("MODEL.SEM_SEG_HEAD.MASK_DIM", 32),
            *("MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS", 2),
            *("MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE", "multi_scale_pixel_decoder"),
            *("MODEL.MASK_FORMER.HIDDEN_DIM", 64),
            *("MODEL.MASK_FORMER.NUM_OBJECT_QUERIES", 10),
            *("MODEL.MASK_FORMER.DIM_FEEDFORWARD", 128),
            *("MODEL.MASK_FORMER.DROPOUT", 0.0),
            *("MODEL.MASK_FORMER.DEC_LAYERS", 4),
            *("MODEL.MASK_FORMER.TRAIN_NUM_POINTS", 128),
            *("DATASETS.TRAIN", ("tiny_model_train",)),
            *overrides,
        ]
    )
    return cfg


def example(
    seed: int, num_targets: int = 3, height: int = 64, width: int = 96, num_classes: int = 5
) -> dict:
    """An image of noise with rectangles for targets, as a mapper would give it."""
    g = torch.Generator().manual_seed(seed)
    masks = torch.zeros(num_targets, height, width, dtype=torch.bool)
    for mask in masks:
        y, x = (int(torch.randint(0, n // 2, (), generator=g)) for n in (height, width))
        mask[y : y + height // 3, x : x + width // 3] = True
    instances = Instances((height, width))
    instances.gt_classes = torch.randint(0, num_classes, (num_targets,), generator=g)
    instances.gt_masks = masks
    image = torch.randint(0, 256, (3, height, width), generator=g, dtype=torch.uint8)
    return {"image": image, "instances": instances, "seed": seed, "file_name": f"{seed}.png"}


def as_labels(masks: torch.Tensor, size: tuple[int, int]) -> LabelMasks:
    """(N,h,w) -> one map in a frame of `size`; where masks overlap, the last has the pixel."""
    values = torch.arange(1, len(masks) + 1, dtype=torch.uint8)
    return LabelMasks((masks * values.view(-1, 1, 1)).amax(0), values, size)


def as_runs(masks: torch.Tensor, size: tuple[int, int]) -> RunLengthMasks:
    """(N,h,w) -> runs, in a frame of `size`."""
    counts = [counts_of(rle["counts"]) for rle in encode(masks)]
    return RunLengthMasks.from_counts(counts, masks.shape[1:], size)
