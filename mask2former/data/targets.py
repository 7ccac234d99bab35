"""From ground truth to what the criterion learns: a class and a binary mask per target.

N targets, H W the size of the (transformed and padded) image
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from detectron2.structures import Instances

from mask2former.data.errors import SampleError


@dataclass(frozen=True)
class SemanticTargets:
    """One target per class that the image shows (the paper's semantic segmentation)."""

    num_classes: int
    ignore_value: int  # of pixels that nobody labelled; never a class

    def read(self, sample: dict, read_image: Callable[[str], np.ndarray]) -> np.ndarray:
        """The label map (H,W) of a dataset dict with `sem_seg_file_name`.

        Raises:
            SampleError: there is no label map, or it holds values that are no class.
        """
        path = sample.get("sem_seg_file_name")
        if path is None:
            raise SampleError(
                f"{sample['file_name']}: its dataset gives no sem_seg_file_name, which semantic "
                "training needs; choose a *_sem_seg_* dataset in DATASETS.TRAIN"
            )
        label = read_image(path)
        if label.ndim != 2:
            raise SampleError(
                f"{path}: a label map has one channel, this one has the shape {label.shape}; "
                "save class indices, not colours"
            )
        values = np.flatnonzero(np.bincount(label.ravel()))
        unknown = values[(values >= self.num_classes) & (values != self.ignore_value)]
        if len(unknown):
            raise SampleError(
                f"{path}: label values {unknown.tolist()} are neither one of the "
                f"{self.num_classes} classes (0 to {self.num_classes - 1}) nor the ignore value "
                f"{self.ignore_value}; correct the file or MODEL.SEM_SEG_HEAD.NUM_CLASSES"
            )
        return label

    def build(self, label: torch.Tensor) -> dict:
        """(H,W) int64 -> sem_seg (H,W) and instances with gt_classes (N,), gt_masks (N,H,W)."""
        classes = label.flatten().bincount().nonzero().flatten()
        classes = classes[classes != self.ignore_value]
        instances = Instances(tuple(label.shape))
        instances.gt_classes = classes
        instances.gt_masks = label == classes[:, None, None]
        return {"sem_seg": label, "instances": instances}
