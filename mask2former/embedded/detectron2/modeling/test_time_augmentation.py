"""Views of an image, over whose predictions a model's test-time augmentation averages."""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from fvcore.transforms.transform import NoOpTransform

from detectron2.config import CfgNode, configurable
from detectron2.data.transforms import (
    AugInput,
    AugmentationList,
    RandomFlip,
    ResizeShortestEdge,
    ResizeTransform,
)

__all__ = ["DatasetMapperTTA"]


class DatasetMapperTTA:
    """From the input of a model to several: the image in each size, and mirrored if asked for."""

    @configurable
    def __init__(self, min_sizes: Sequence[int], max_size: int, flip: bool):
        """
        Args:
            min_sizes: lengths of the shorter edge.
            max_size: of the longer edge; it wins.
            flip: a mirrored view after each view.
        """
        self.min_sizes = min_sizes
        self.max_size = max_size
        self.flip = flip

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        aug = cfg.TEST.AUG
        return {"min_sizes": aug.MIN_SIZES, "max_size": aug.MAX_SIZE, "flip": aug.FLIP}

    def __call__(self, dataset_dict: dict) -> list[dict]:
        """
        Args:
            dataset_dict: "image" (3,H,W) uint8, and "height" and "width" of the original.

        Returns:
            copies of it with the "image" of a view and its "transforms": from the original's
            coordinates to the view's.
        """
        image = np.ascontiguousarray(dataset_dict["image"].permute(1, 2, 0).numpy())
        size = image.shape[:2]
        original_size = dataset_dict["height"], dataset_dict["width"]
        to_input = NoOpTransform()
        if size != original_size:
            to_input = ResizeTransform(*original_size, *size)
        rest = {key: value for key, value in dataset_dict.items() if key != "image"}
        views = []
        for min_size in self.min_sizes:
            resize = ResizeShortestEdge(min_size, self.max_size)
            for mirror in ([], [RandomFlip(prob=1.0)])[: 1 + self.flip]:
                view = AugInput(image)
                transforms = AugmentationList([resize, *mirror])(view)
                channels_first = np.ascontiguousarray(view.image.transpose(2, 0, 1))
                views.append(
                    {
                        **copy.deepcopy(rest),
                        "image": torch.from_numpy(channels_first),
                        "transforms": to_input + transforms,
                    }
                )
        return views
