"""The two forms of a training sample: as it travels, and as the official mappers give it.

| entry | compact | plain, the official form |
| --- | --- | --- |
| image | uint8 (3,h,w), of the content | uint8 (3,H,W), padded with IMAGE_PADDING |
| padded_size | (H, W), the frame | |
| ignore_value | of semantic samples | |
| instances.gt_masks | LabelMasks or RunLengthMasks | bool (N,H,W) |
| sem_seg | | of semantic samples, int64 (H,W), padded with the ignore value |

A model that pads on its device and draws the masks there is sent a fraction of the bytes.
"""

import torch
from detectron2.structures import Instances
from torch import Tensor

from mask2former.layers.frames import IMAGE_PADDING, pad_to
from mask2former.layers.label_masks import LabelMasks
from mask2former.layers.run_length_masks import RunLengthMasks


class GroundTruth(Instances):
    """gt_classes (N,) and gt_masks of a compact sample, which a DataLoader can pin."""

    def pin_memory(self) -> Instances:
        pinned = {name: value.pin_memory() for name, value in self.get_fields().items()}
        return Instances(self.image_size, **pinned)


def ground_truth(classes: Tensor, masks: LabelMasks | RunLengthMasks) -> GroundTruth:
    """N classes and masks, of a frame (H, W), as a sample's "instances"."""
    return GroundTruth(masks.size, gt_classes=classes, gt_masks=masks)


def plain(sample: dict) -> dict:
    """A compact sample in the official form."""
    sample = dict(sample)
    frame = sample.pop("padded_size", sample["image"].shape[1:])
    sample["image"] = pad_to(sample["image"], frame, IMAGE_PADDING).contiguous()
    if "instances" in sample:
        classes, masks = sample["instances"].gt_classes, sample["instances"].gt_masks
        sample["instances"] = Instances(tuple(frame), gt_classes=classes, gt_masks=masks.tensor)
        if "ignore_value" in sample:
            sample["sem_seg"] = _class_map(classes, masks, sample.pop("ignore_value"))
    return sample


def _class_map(classes: Tensor, masks: LabelMasks, ignore_value: int) -> Tensor:
    """(N,), masks (N,H,W) that share no pixel -> (H,W) int64"""
    labels = masks.labels.long()
    table = torch.full((int(labels.max()) + 1,), ignore_value)
    table[masks.values.long()] = classes
    return pad_to(table[labels], masks.size, ignore_value)
