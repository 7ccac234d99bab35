"""Config keys of DeepLab."""

from detectron2.config import CfgNode


def add_deeplab_config(cfg: CfgNode) -> None:
    """Add the keys of DeepLabV3 and V3+ (Chen et al. 2017, 2018) with their defaults."""
    # Largest fraction of a random crop that one category may cover; 1 for any crop.
    cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA = 1.0

    # (1 - iteration / MAX_ITER) ** power, never below this fraction of the base rate.
    cfg.SOLVER.POLY_LR_POWER = 0.9
    cfg.SOLVER.POLY_LR_CONSTANT_ENDING = 0.0

    backbone = cfg.MODEL.RESNETS
    backbone.STEM_TYPE = "deeplab"  # or "basic"
    backbone.RES4_DILATION = 1
    backbone.RES5_MULTI_GRID = [1, 2, 4]  # times RES5_DILATION, for the three blocks of res5

    head = cfg.MODEL.SEM_SEG_HEAD
    head.LOSS_TYPE = "hard_pixel_mining"
    head.PROJECT_FEATURES = ["res2"]
    head.PROJECT_CHANNELS = [48]
    head.ASPP_CHANNELS = 256
    head.ASPP_DILATIONS = [6, 12, 18]
    head.ASPP_DROPOUT = 0.1
    head.USE_DEPTHWISE_SEPARABLE_CONV = False
