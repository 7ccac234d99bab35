"""The criterion that a config describes."""

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from mask2former.config import predicted_classes
from mask2former.modeling.criterion.class_weights import KEY, class_weights
from mask2former.modeling.criterion.criterion import SetCriterion
from mask2former.modeling.criterion.mask_comparison import AtPoints, MaskComparison, WholeMasks


def build_criterion(cfg: CfgNode, num_classes: int) -> SetCriterion:
    """Losses and their weights from MODEL.MASK_FORMER.

    Args:
        num_classes: K, without "no object".
    Raises:
        ValueError: there is no such MASK_LOSS, or CLASS_WEIGHTS does not fit the training set.
    """
    mask_former = cfg.MODEL.MASK_FORMER
    return SetCriterion(
        num_classes,
        class_weight=mask_former.CLASS_WEIGHT,
        mask_weight=mask_former.MASK_WEIGHT,
        dice_weight=mask_former.DICE_WEIGHT,
        no_object_weight=mask_former.NO_OBJECT_WEIGHT,
        deep_supervision=mask_former.DEEP_SUPERVISION,
        comparison=build_mask_comparison(mask_former),
        class_weights=read_class_weights(cfg, num_classes),
        class_norm_over_ranks=mask_former.CLASS_NORM_OVER_RANKS,
    )


def build_mask_comparison(mask_former: CfgNode) -> MaskComparison:
    """What MODEL.MASK_FORMER.MASK_LOSS names."""
    if mask_former.MASK_LOSS == "whole_masks":
        return WholeMasks()
    if mask_former.MASK_LOSS == "points":
        return AtPoints(
            mask_former.TRAIN_NUM_POINTS,
            mask_former.OVERSAMPLE_RATIO,
            mask_former.IMPORTANCE_SAMPLE_RATIO,
        )
    raise ValueError(
        f"MODEL.MASK_FORMER.MASK_LOSS={mask_former.MASK_LOSS!r}; set it to points or whole_masks"
    )


def read_class_weights(cfg: CfgNode, num_classes: int) -> list[float] | None:
    """What CLASS_WEIGHTS says of the first training set's classes; None without either."""
    entries, names = cfg.MODEL.MASK_FORMER.CLASS_WEIGHTS, cfg.DATASETS.TRAIN
    if not entries or not names:
        return None
    classes = predicted_classes(MetadataCatalog.get(names[0])) or ()
    if len(classes) != num_classes:
        raise ValueError(
            f"{KEY} names classes, of which {names[0]} has {len(classes)} in its metadata; "
            f"set MODEL.SEM_SEG_HEAD.NUM_CLASSES={num_classes} to their number"
        )
    return class_weights(entries, classes)
