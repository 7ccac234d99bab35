"""The criterion that a config describes."""

from detectron2.config import CfgNode

from mask2former.modeling.criterion.criterion import SetCriterion


def build_criterion(cfg: CfgNode, num_classes: int) -> SetCriterion:
    """Losses and their weights from MODEL.MASK_FORMER.

    Args:
        num_classes: K, without "no object".
    """
    mask_former = cfg.MODEL.MASK_FORMER
    return SetCriterion(
        num_classes,
        class_weight=mask_former.CLASS_WEIGHT,
        mask_weight=mask_former.MASK_WEIGHT,
        dice_weight=mask_former.DICE_WEIGHT,
        no_object_weight=mask_former.NO_OBJECT_WEIGHT,
        deep_supervision=mask_former.DEEP_SUPERVISION,
        num_points=mask_former.TRAIN_NUM_POINTS,
        oversample_ratio=mask_former.OVERSAMPLE_RATIO,
        importance_sample_ratio=mask_former.IMPORTANCE_SAMPLE_RATIO,
        class_norm_over_ranks=mask_former.CLASS_NORM_OVER_RANKS,
    )
