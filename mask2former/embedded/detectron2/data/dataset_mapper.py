"""From a dataset's dict to a model's input: read, augment, make tensors."""

import copy
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from detectron2.config import CfgNode, configurable
from detectron2.structures import Instances

from . import detection_utils as utils
from . import transforms as T

__all__ = ["DatasetMapper"]

logger = logging.getLogger(__name__)


class DatasetMapper:
    """The default mapper of detection and instance segmentation.

    Args:
        is_train: keep annotations; in inference they are dropped.
        augmentations: applied in this order to image, labels and annotations.
        image_format: see `detection_utils.read_image`.
        use_instance_mask: give gt_masks.
        use_keypoint: give gt_keypoints.
        instance_mask_format: "polygon" or "bitmask".
        keypoint_hflip_indices: see `detection_utils.create_keypoint_hflip_indices`.
        precomputed_proposal_topk: must be None: the subset has no proposals.
        recompute_boxes: take boxes from the masks after augmentation; those of a cropped
            object are otherwise too large.
    """

    @configurable
    def __init__(
        self,
        is_train: bool,
        *,
        augmentations: Sequence[T.Augmentation | T.Transform],
        image_format: str,
        use_instance_mask: bool = False,
        use_keypoint: bool = False,
        instance_mask_format: str = "polygon",
        keypoint_hflip_indices: np.ndarray | None = None,
        precomputed_proposal_topk: int | None = None,
        recompute_boxes: bool = False,
    ) -> None:
        if recompute_boxes and not use_instance_mask:
            raise ValueError("recompute_boxes needs masks; set use_instance_mask=True")
        if precomputed_proposal_topk is not None:
            raise ValueError(
                "MODEL.LOAD_PROPOSALS is set, but precomputed proposals are not in the embedded "
                "subset; pip install 'git+https://github.com/facebookresearch/detectron2'"
            )
        self.is_train = is_train
        self.augmentations = T.AugmentationList(augmentations)
        self.image_format = image_format
        self.use_instance_mask = use_instance_mask
        self.instance_mask_format = instance_mask_format
        self.use_keypoint = use_keypoint
        self.keypoint_hflip_indices = keypoint_hflip_indices
        self.recompute_boxes = recompute_boxes
        stage = "training" if is_train else "inference"
        logger.info("Augmentations used in %s: %s", stage, list(augmentations))

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        augmentations = utils.build_augmentation(cfg, is_train)
        crops = is_train and cfg.INPUT.CROP.ENABLED
        if crops:
            augmentations.insert(0, T.RandomCrop(cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE))
        arguments = {
            "is_train": is_train,
            "augmentations": augmentations,
            "image_format": cfg.INPUT.FORMAT,
            "use_instance_mask": cfg.MODEL.MASK_ON,
            "instance_mask_format": cfg.INPUT.MASK_FORMAT,
            "use_keypoint": cfg.MODEL.KEYPOINT_ON,
            "recompute_boxes": crops and cfg.MODEL.MASK_ON,
        }
        if cfg.MODEL.KEYPOINT_ON:
            indices = utils.create_keypoint_hflip_indices(cfg.DATASETS.TRAIN)
            arguments["keypoint_hflip_indices"] = indices
        if cfg.MODEL.LOAD_PROPOSALS:
            topk = cfg.DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TRAIN
            arguments["precomputed_proposal_topk"] = topk
        return arguments

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """A new dict with "image" (C, H, W), and what there is of "sem_seg" and "instances".

        Args:
            dataset_dict: one sample of a dataset; it is not changed.
        """
        dataset_dict = copy.deepcopy(dataset_dict)
        image = utils.read_image(dataset_dict["file_name"], format=self.image_format)
        utils.check_image_size(dataset_dict, image)
        sem_seg = None
        if "sem_seg_file_name" in dataset_dict:
            sem_seg = utils.read_image(dataset_dict.pop("sem_seg_file_name"), "L").squeeze(2)

        aug_input = T.AugInput(image, sem_seg=sem_seg)
        transforms = self.augmentations(aug_input)
        channels_first = aug_input.image.transpose(2, 0, 1)
        dataset_dict["image"] = torch.from_numpy(np.ascontiguousarray(channels_first))
        if aug_input.sem_seg is not None:
            dataset_dict["sem_seg"] = torch.from_numpy(aug_input.sem_seg.astype(np.int64))

        annotations = dataset_dict.pop("annotations", None)
        if self.is_train and annotations is not None:
            image_size = aug_input.image.shape[:2]
            dataset_dict["instances"] = self._instances(annotations, transforms, image_size)
        return dataset_dict

    def _instances(
        self, annotations: list[dict], transforms: T.Transform, image_size: tuple[int, int]
    ) -> Instances:
        unused = [
            key
            for key, is_used in (
                ("segmentation", self.use_instance_mask),
                ("keypoints", self.use_keypoint),
            )
            if not is_used
        ]
        transformed = [
            utils.transform_instance_annotations(
                {key: value for key, value in annotation.items() if key not in unused},
                transforms,
                image_size,
                keypoint_hflip_indices=self.keypoint_hflip_indices,
            )
            for annotation in annotations
            if not annotation.get("iscrowd", 0)
        ]
        instances = utils.annotations_to_instances(
            transformed, image_size, mask_format=self.instance_mask_format
        )
        if self.recompute_boxes and instances.has("gt_masks"):
            instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        return utils.filter_empty_instances(instances)
