"""MODEL.MASK_FORMER.CLASS_WEIGHTS ["auto"]: rare classes weigh more."""

import logging
from collections import Counter

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog, get_detection_dataset_dicts
from tabulate import tabulate

from mask2former.config import predicted_classes
from mask2former.data.class_counts import classes_of_samples

logger = logging.getLogger(__name__)

AUTO = "auto"
BOUNDS = (0.25, 4.0)


def balanced_weights(num_images: np.ndarray) -> np.ndarray:
    """Weights of classes by how many images show each: 1 / sqrt(frequency), of the mean 1.

    The square root is that of repeat factors (LVIS, Gupta et al. 2019): half-way between as it is
    and all alike. The mean is taken over the classes that occur; the others have weight 1. Then
    weights are clipped to 0.25 .. 4, lest a class of one image rules the loss.

    Shapes: (K,) -> (K,)
    """
    occurs = num_images > 0
    weights = np.ones(len(num_images))
    if occurs.any():
        inverse = 1 / np.sqrt(num_images[occurs])
        weights[occurs] = np.clip(inverse / inverse.mean(), *BOUNDS)
    return weights


def resolve_class_weights(cfg: CfgNode) -> CfgNode:
    """A config in which "auto" has become NAME=WEIGHT of each class, counted in DATASETS.TRAIN.

    Without "auto" it is `cfg` itself. To be called in all processes: one counts.

    Raises:
        SampleError: a label file cannot be read.
    """
    if list(cfg.MODEL.MASK_FORMER.CLASS_WEIGHTS) != [AUTO]:
        return cfg
    dicts = get_detection_dataset_dicts(
        list(cfg.DATASETS.TRAIN), filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
    )
    names = predicted_classes(MetadataCatalog.get(cfg.DATASETS.TRAIN[0]))
    head = cfg.MODEL.SEM_SEG_HEAD
    shown = classes_of_samples(dicts, head.NUM_CLASSES, head.IGNORE_VALUE)
    # By name: a few datasets give one to several classes.
    counts = Counter(name for classes in shown for name in {names[i] for i in classes})
    unique = list(dict.fromkeys(names))
    num_images = np.array([counts[name] for name in unique])
    weights = balanced_weights(num_images).tolist()
    rows = zip(unique, num_images.tolist(), weights)
    table = tabulate(rows, headers=["class", "images", "weight"], floatfmt=".3g")
    logger.info("CLASS_WEIGHTS from the %d training images:\n%s", len(dicts), table)
    resolved = cfg.clone()
    resolved.defrost()
    resolved.MODEL.MASK_FORMER.CLASS_WEIGHTS = [
        f"{name}={weight:.4g}" for name, weight in zip(unique, weights)
    ]
    resolved.freeze()
    return resolved
