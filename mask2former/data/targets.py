"""From ground truth to what the criterion learns: a class and a binary mask per target.

N targets, H0 W0 the size of the picture's file, H W that of the transformed and padded image
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from detectron2.data import transforms as T
from detectron2.structures import Instances
from panopticapi.utils import rgb2id

from mask2former.data import annotation_masks
from mask2former.data.errors import SampleError
from mask2former.data.sample_files import check_label_map, check_label_values, count_values

# What a dataset gives for each picture -> the INPUT.DATASET_MAPPER_NAMEs that learn from it.
MAPPERS_OF_KIND = {
    "sem_seg_file_name": "mask_former_semantic",
    "annotations": "mask_former_instance or coco_instance_lsj",
    "pan_seg_file_name": "mask_former_panoptic, coco_panoptic_lsj or detr_panoptic",
}

ReadImage = Callable[[str, str | None], np.ndarray]  # (path, a PIL mode or None) -> pixels


class Moved(NamedTuple):
    """What happened to the picture, and must happen to its targets."""

    transforms: T.Transform
    size: tuple[int, int]  # (h, w) after the transforms
    class_map: np.ndarray | None  # (h,w), if `read` gave one
    pad: Callable[[torch.Tensor, int], torch.Tensor]  # (...,h,w), value -> (...,H,W)


class Targets(Protocol):
    """Reads what an annotator said of a picture, and builds what the model learns from it."""

    def read(
        self, sample: dict, size: tuple[int, int], read_image: ReadImage
    ) -> tuple[np.ndarray | None, Any]:
        """Read the ground truth of a dataset dict whose picture has the size (H0, W0).

        Returns:
            a class map (H0,W0) for a crop that looks at classes, or None; and what `build` needs.

        Raises:
            SampleError: the ground truth is missing, damaged, or of another picture or dataset.
        """

    def build(self, truth: Any, moved: Moved) -> dict:
        """The sample's new entries, among them instances: gt_classes (N,), gt_masks (N,H,W) bool.

        N may be 0.
        """


@dataclass(frozen=True)
class SemanticTargets:
    """One target per class that the image shows (the paper's semantic segmentation)."""

    num_classes: int
    ignore_value: int  # of pixels that nobody labelled; never a class

    def read(
        self, sample: dict, size: tuple[int, int], read_image: ReadImage
    ) -> tuple[np.ndarray, None]:
        path = _require(sample, "sem_seg_file_name")
        label = read_image(path, None)
        check_label_map(path, label)
        check_size(sample["file_name"], size, label.shape[:2], "labels have")
        values, _ = count_values(label)
        check_label_values(path, values, self.num_classes, self.ignore_value)
        # As double, like the official mapper: detectron2 resizes uint8 by another rule for the
        # nearest neighbour (Pillow's) than floats (torch's), and single precision rounds apart.
        return label.astype(np.float64), None

    def build(self, truth: None, moved: Moved) -> dict:
        """Adds sem_seg (H,W) int64 as well."""
        label = torch.from_numpy(np.ascontiguousarray(moved.class_map)).long()
        label = moved.pad(label, self.ignore_value)
        classes = label.flatten().bincount().nonzero().flatten()
        classes = classes[classes != self.ignore_value]
        masks = label == classes[:, None, None]
        return {"sem_seg": label, "instances": _instances(classes, masks)}


@dataclass(frozen=True)
class InstanceTargets:
    """One target per annotated object. Crowd regions (iscrowd) are not learned."""

    num_classes: int
    drop_empty: bool = False  # what the transforms have moved out of sight

    def read(
        self, sample: dict, size: tuple[int, int], read_image: ReadImage
    ) -> tuple[None, list[tuple[int, annotation_masks.Segmentation]]]:
        objects = []
        for index, annotation in enumerate(_require(sample, "annotations")):
            if annotation.get("iscrowd", 0):
                continue
            where = f"{sample['file_name']}: annotation {annotation.get('id', f'number {index}')}"
            category = check_category(where, annotation, self.num_classes)
            if "segmentation" not in annotation:
                raise SampleError(
                    f"{where} has no segmentation; masks are learned, so boxes are not enough"
                )
            try:
                segmentation = annotation_masks.read_segmentation(annotation["segmentation"], *size)
            except ValueError as error:
                raise SampleError(f"{where}: {error}; correct or remove this object") from error
            if annotation_masks.covers_any(segmentation):
                objects.append((category, segmentation))
        return None, objects

    def build(self, truth: list[tuple[int, annotation_masks.Segmentation]], moved: Moved) -> dict:
        classes = torch.tensor([category for category, _ in truth], dtype=torch.int64)
        masks = np.zeros((len(truth), *moved.size), dtype=bool)
        for mask, (_, segmentation) in zip(masks, truth):
            segmentation = annotation_masks.transform(segmentation, moved.transforms)
            mask[:] = annotation_masks.draw(segmentation, *moved.size)
        masks = moved.pad(torch.from_numpy(masks), 0)
        return {"instances": _instances(classes, masks, self.drop_empty)}


class _Panoptic(NamedTuple):
    path: str
    colors: np.ndarray  # (H0,W0,3) uint8, the segments' ids as panopticapi writes them
    segments: list[dict]


@dataclass(frozen=True)
class PanopticTargets:
    """One target per segment, thing or stuff. Crowd regions (iscrowd) are not learned."""

    num_classes: int
    ignore_value: int
    drop_empty: bool = False  # what the transforms have moved out of sight
    with_class_map: bool = False  # whether a crop looks at it

    def read(
        self, sample: dict, size: tuple[int, int], read_image: ReadImage
    ) -> tuple[np.ndarray | None, _Panoptic]:
        path = _require(sample, "pan_seg_file_name")
        colors = read_image(path, "RGB")
        check_size(sample["file_name"], size, colors.shape[:2], "segments have")
        segments = sample["segments_info"]
        for segment in segments:
            where = f"{path}: segment {segment['id']}"
            check_category(where, segment, self.num_classes)
            if segment["id"] == 0:
                raise SampleError(f"{where}: the id 0 is that of no segment; give another one")
        truth = _Panoptic(path, colors, segments)
        return (self._class_map(truth) if self.with_class_map else None), truth

    def build(self, truth: _Panoptic, moved: Moved) -> dict:
        # As colours, like the official mapper: what is uint8 is resized by Pillow's rule.
        ids = rgb2id(moved.transforms.apply_segmentation(truth.colors))  # (h,w)
        ids = moved.pad(torch.from_numpy(np.ascontiguousarray(ids)), 0)
        learned = [segment for segment in truth.segments if not segment.get("iscrowd", 0)]
        segment_ids = torch.tensor([segment["id"] for segment in learned], dtype=ids.dtype)
        classes = torch.tensor([int(s["category_id"]) for s in learned], dtype=torch.int64)
        masks = ids == segment_ids[:, None, None]
        if len(learned) and not masks.any():  # by the crop, or always?
            _check_any_segment(truth)
        return {"instances": _instances(classes, masks, self.drop_empty)}

    def _class_map(self, truth: _Panoptic) -> np.ndarray:
        ids = rgb2id(truth.colors)
        classes = np.full(ids.shape, self.ignore_value, dtype=np.float64)
        for segment in truth.segments:
            classes[ids == segment["id"]] = segment["category_id"]
        return classes


def check_size(path: str, size: Sequence[int], other: Sequence[int], owner: str) -> None:
    """Whether what belongs to a picture has its size, (height, width).

    Raises:
        SampleError: it has another; `owner` with its verb says who.
    """
    if tuple(size) == tuple(other):
        return
    advice = "one of the two belongs to another file"
    if tuple(size) == tuple(other)[::-1]:
        advice = (
            "pictures are turned as their EXIF orientation says, so label them as viewers show "
            "them, or take the orientation out of the file"
        )
    raise SampleError(
        f"{path}: the picture has {size[0]}x{size[1]} pixels (height x width), but its {owner} "
        f"{other[0]}x{other[1]}; {advice}"
    )


def _require(sample: dict, key: str) -> Any:
    if key in sample:
        return sample[key]
    kinds = [kind for kind in MAPPERS_OF_KIND if kind in sample]
    found = f"but {' and '.join(kinds)}" if kinds else "nor anything else to learn from"
    fitting = " or ".join(MAPPERS_OF_KIND[kind] for kind in kinds)
    advice = f"set INPUT.DATASET_MAPPER_NAME to {fitting}, or " if kinds else ""
    raise SampleError(
        f"{sample['file_name']}: its dataset gives no {key}, {found}; {advice}choose another "
        "dataset in DATASETS.TRAIN"
    )


def check_category(where: str, entry: dict, num_classes: int) -> int:
    """The class of an annotation or a segment.

    Raises:
        SampleError: it has none, or one that there is not.
    """
    category = entry.get("category_id")
    if category not in range(num_classes):
        raise SampleError(
            f"{where} has category_id={category!r}, which is none of the {num_classes} classes (0 "
            f"to {num_classes - 1}); correct it or MODEL.SEM_SEG_HEAD.NUM_CLASSES"
        )
    return int(category)


def _check_any_segment(truth: _Panoptic) -> None:
    listed = [segment["id"] for segment in truth.segments]
    if not np.isin(rgb2id(truth.colors), listed).any():
        raise SampleError(
            f"{truth.path}: none of its {len(listed)} segments is in it; the file belongs to "
            "another picture, or its colours are not ids (R + 256 G + 65536 B)"
        )


def _instances(classes: torch.Tensor, masks: torch.Tensor, drop_empty: bool = False) -> Instances:
    if drop_empty:
        seen = masks.flatten(1).any(dim=1)
        classes, masks = classes[seen], masks[seen]
    instances = Instances(tuple(masks.shape[-2:]))
    instances.gt_classes = classes
    instances.gt_masks = masks
    return instances
