"""From ground truth to what the criterion learns: a class and a binary mask per target.

Masks stay as small as they are told: labels as one map, objects as lengths of runs. Where they are
needed, they are drawn.

N targets, H0 W0 the size of the picture's file, h w what the transforms left of it, H W its frame
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
import torch

from mask2former.data import annotation_masks
from mask2former.data.compact import GroundTruth, ground_truth
from mask2former.data.errors import SampleError
from mask2former.data.geometry import ClassMap, Geometry, pick
from mask2former.data.sample_files import check_label_map, check_label_values, count_values
from mask2former.layers.label_masks import LabelMasks
from mask2former.layers.run_length_masks import RunLengthMasks

# What a dataset gives for each picture -> the INPUT.DATASET_MAPPER_NAMEs that learn from it.
MAPPERS_OF_KIND = {
    "sem_seg_file_name": "mask_former_semantic",
    "annotations": "mask_former_instance or coco_instance_lsj",
    "pan_seg_file_name": "mask_former_panoptic, coco_panoptic_lsj or detr_panoptic",
}

_NUM_IDS = 1 << 24  # that a colour of three bytes can tell of
_NUMBER_TYPES = (np.uint8, np.int16, np.int32)  # those that torch has as well

ReadImage = Callable[[str, str | None], np.ndarray]  # (path, a PIL mode or None) -> pixels


class Targets(Protocol):
    """Reads what an annotator said of a picture, and builds what the model learns from it."""

    def read(
        self, sample: dict, size: tuple[int, int], read_image: ReadImage
    ) -> tuple[np.ndarray | ClassMap | None, Any]:
        """Read the ground truth of a dataset dict whose picture has the size (H0, W0).

        Returns:
            the classes of pixels (H0,W0) for a crop that looks at them, or None; and what `build`
            needs.

        Raises:
            SampleError: the ground truth is missing, damaged, or of another picture or dataset.
        """

    def build(self, truth: Any, geometry: Geometry) -> dict:
        """The new entries of a compact sample, among them instances: N targets, perhaps none."""


@dataclass(frozen=True)
class SemanticTargets:
    """One target per class that the image shows (the paper's semantic segmentation)."""

    num_classes: int
    ignore_value: int  # of pixels that nobody labelled; never a class

    def read(
        self, sample: dict, size: tuple[int, int], read_image: ReadImage
    ) -> tuple[np.ndarray, np.ndarray]:
        path = _require(sample, "sem_seg_file_name")
        label = read_image(path, None)
        check_label_map(path, label)
        check_size(sample["file_name"], size, label.shape[:2], "labels have")
        values, _ = count_values(label)
        check_label_values(path, values, self.num_classes, self.ignore_value)
        return label, label

    def build(self, truth: np.ndarray, geometry: Geometry) -> dict:
        """Adds ignore_value, of pixels of no target."""
        label = geometry.labels(truth, "torch")  # the official mapper's are doubles
        if label.dtype.kind == "i":
            label = label.clip(min=-1)  # an ignore value may be less, such as torch's -100
        masks, areas = _label_masks(label, range(self.num_classes), geometry.frame)
        instances = ground_truth(torch.arange(self.num_classes), masks)
        instances = _seen(instances, areas, drop_empty=True)
        return {"ignore_value": self.ignore_value, "instances": instances}


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

    def build(
        self, truth: list[tuple[int, annotation_masks.Segmentation]], geometry: Geometry
    ) -> dict:
        counts = []
        for _, segmentation in truth:
            segmentation = annotation_masks.transform(segmentation, geometry)
            counts.append(annotation_masks.run_lengths(segmentation, *geometry.size))
        classes = torch.tensor([category for category, _ in truth], dtype=torch.int64)
        masks = RunLengthMasks.from_counts(counts, geometry.size, geometry.frame)
        areas = torch.tensor([lengths[1::2].sum() for lengths in counts])
        return {"instances": _seen(ground_truth(classes, masks), areas, self.drop_empty)}


class _Panoptic(NamedTuple):
    path: str
    ids: np.ndarray  # (H0,W0) int32
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
    ) -> tuple[ClassMap | None, _Panoptic]:
        path = _require(sample, "pan_seg_file_name")
        colors = read_image(path, "RGB")
        check_size(sample["file_name"], size, colors.shape[:2], "segments have")
        segments = sample["segments_info"]
        for segment in segments:
            where = f"{path}: segment {segment['id']}"
            check_category(where, segment, self.num_classes)
            if not 0 < segment["id"] < _NUM_IDS:
                raise SampleError(
                    f"{where}: 0 is the id of no segment, and colours tell of ids up to "
                    f"{_NUM_IDS - 1}; give another one"
                )
        truth = _Panoptic(path, _ids_of(colors), segments)
        return (self._class_map(truth) if self.with_class_map else None), truth

    def build(self, truth: _Panoptic, geometry: Geometry) -> dict:
        ids = geometry.labels(truth.ids, "pillow")  # which resizes the official mapper's colours
        learned = [segment for segment in truth.segments if not segment.get("iscrowd", 0)]
        masks, areas = _label_masks(ids, [segment["id"] for segment in learned], geometry.frame)
        if len(learned) and not areas.any():  # by the crop, or always?
            _check_any_segment(truth)
        classes = torch.tensor([int(s["category_id"]) for s in learned], dtype=torch.int64)
        return {"instances": _seen(ground_truth(classes, masks), areas, self.drop_empty)}

    def _class_map(self, truth: _Panoptic) -> ClassMap:
        ids_at = pick(truth.ids)
        numbers = _numbers([segment["id"] for segment in truth.segments])
        classes = np.array([self.ignore_value, *(s["category_id"] for s in truth.segments)])
        classes = classes.astype(np.min_scalar_type(classes.max()))

        def classes_at(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
            return classes.take(numbers.take(ids_at(rows, columns)))

        return classes_at


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
    if not np.isin(truth.ids, listed).any():
        raise SampleError(
            f"{truth.path}: none of its {len(listed)} segments is in it; the file belongs to "
            "another picture, or its colours are not ids (R + 256 G + 65536 B)"
        )


def _ids_of(colors: np.ndarray) -> np.ndarray:
    """(H0,W0,3) uint8 -> (H0,W0) int32: R + 256 G + 65536 B, as panopticapi writes ids."""
    four_bytes = cv2.cvtColor(colors, cv2.COLOR_RGB2RGBA)
    return four_bytes.view("<i4")[..., 0].astype(np.int32) & _NUM_IDS - 1


def _numbers(wanted: Sequence[int], num_ids: int = _NUM_IDS) -> np.ndarray:
    """A table of all ids there can be: 1 to N for the wanted ones, in their order, else 0."""
    number_type = next(t for t in _NUMBER_TYPES if len(wanted) <= np.iinfo(t).max)
    table = np.zeros(num_ids, number_type)  # memory that nobody looks at is not taken
    table[list(wanted)] = np.arange(1, len(wanted) + 1)
    return table


def _label_masks(
    ids: np.ndarray, wanted: Sequence[int], frame: tuple[int, int]
) -> tuple[LabelMasks, torch.Tensor]:
    """Masks of N wanted ids of a map (h,w), and how many pixels each has: (N,).

    The map, of numbers from -1 on, is numbered anew, so that bytes do for most.
    """
    highest = max(ids.max(initial=0), *wanted, 0)
    numbers = _numbers(wanted, int(highest) + 2)  # the last one is of nobody, as is -1
    labels = torch.from_numpy(numbers.take(ids))
    values = torch.from_numpy(numbers[list(wanted)])  # an id that is wanted twice has one number
    areas = labels.flatten().bincount(minlength=len(wanted) + 1)[values.long()]
    return LabelMasks(labels, values, frame), areas


def _seen(found: GroundTruth, areas: torch.Tensor, drop_empty: bool) -> GroundTruth:
    """Those that have an area (N,) left, or all."""
    if not drop_empty:
        return found
    seen = areas > 0
    return ground_truth(found.gt_classes[seen], found.gt_masks[seen])
