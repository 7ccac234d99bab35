"""What of a picture belongs to which class, and what is wrong with it: one function a kind of data.

H W the size of the picture
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from panopticapi.utils import rgb2id

from mask2former.data import annotation_masks
from mask2former.data.errors import SampleError
from mask2former.data.problems import Problem
from mask2former.data.sample_files import (
    check_label_map,
    check_label_values,
    count_values,
    read_image,
)
from mask2former.data.targets import check_category, check_size

OUTSIDE = 1.0  # pixels by which a polygon may overlap the border; rounding does so


@dataclass(frozen=True)
class Rules:
    """What holds for all samples of a dataset."""

    num_classes: int
    ignore_value: int


Found = tuple[int, np.ndarray] | Problem  # a class and its mask (H,W) bool, or what is wrong


def label_objects(sample: dict, size: tuple[int, int], rules: Rules) -> Iterator[Found]:
    """The classes of a label map."""
    path = sample["sem_seg_file_name"]
    try:
        label = read_image(path, None)
    except SampleError as error:
        yield Problem("unreadable label", str(error))
        return
    values, _ = count_values(label)
    checks: tuple[tuple[str, Callable[..., None], tuple], ...] = (
        ("label that is no label map", check_label_map, (path, label)),
        ("size mismatch", check_size, (sample["file_name"], size, label.shape[:2], "labels have")),
        (
            "label out of range",
            check_label_values,
            (path, values, rules.num_classes, rules.ignore_value),
        ),
    )
    for kind, check, args in checks:
        try:
            check(*args)
        except SampleError as error:
            yield Problem(kind, str(error))
            if kind != "label out of range":
                return
    classes = [v for v in values.tolist() if v in range(rules.num_classes)]
    classes = [v for v in classes if v != rules.ignore_value]
    if not classes:
        text = f"{path}: no pixel has a class; label some, or take the picture out"
        yield Problem("label without any class", text, is_fatal=False)
    for value in classes:
        yield value, label == value


def annotation_objects(sample: dict, size: tuple[int, int], rules: Rules) -> Iterator[Found]:
    """The masks of annotations."""
    if not sample["annotations"]:
        text = f"{sample['file_name']}: no annotations; that is right if it shows no object"
        yield Problem("picture without objects", text, is_fatal=False)
    for index, annotation in enumerate(sample["annotations"]):
        where = f"{sample['file_name']}: annotation {annotation.get('id', f'number {index}')}"
        try:
            category = check_category(where, annotation, rules.num_classes)
        except SampleError as error:
            yield Problem("category out of range", str(error))
            continue
        segmentation = annotation.get("segmentation")
        try:
            shape = annotation_masks.read_segmentation(segmentation, *size)
        except ValueError as error:
            yield Problem("unusable segmentation", f"{where}: {error}")
            continue
        mask = annotation_masks.draw(shape, *size)
        yield from _polygon_problems(where, segmentation, size)
        if mask.any():
            yield category, mask
        else:
            text = f"{where}: its mask has no pixel in the picture; draw it again or take it out"
            yield Problem("empty mask", text)


def _polygon_problems(where: str, segmentation: object, size: tuple[int, int]) -> Iterator[Problem]:
    if isinstance(segmentation, dict):
        return
    limits = np.array(size[::-1])  # of x and y
    for polygon in segmentation:
        corners = np.reshape(polygon, (-1, 2))
        if len(np.unique(corners, axis=0)) < 3:
            text = f"{where}: a polygon of {len(corners)} points, fewer than 3 of them different; "
            yield Problem("degenerate polygon", text + "draw it again or take it out")
            continue
        beyond = max(-corners.min(), (corners - limits).max())
        if beyond > OUTSIDE:
            text = f"{where}: a polygon reaches {beyond:g} pixels beyond the picture; "
            text += "is it of another picture, or of another size of this one?"
            is_gone = bool(((corners <= 0).all(0) | (corners >= limits).all(0)).any())
            yield Problem("polygon outside the picture", text, is_fatal=is_gone)


def segment_objects(sample: dict, size: tuple[int, int], rules: Rules) -> Iterator[Found]:
    """The segments of a panoptic PNG."""
    path = sample["pan_seg_file_name"]
    try:
        colors = read_image(path, "RGB")
    except SampleError as error:
        yield Problem("unreadable PNG", str(error))
        return
    try:
        check_size(sample["file_name"], size, colors.shape[:2], "segments have")
    except SampleError as error:
        yield Problem("size mismatch", str(error))
        return
    ids = rgb2id(colors)
    drawn = set(np.unique(ids).tolist()) - {0}
    seen = set()
    for segment in sample["segments_info"]:
        number = segment["id"]
        where = f"{path}: segment {number}"
        if number in seen:
            text = f"{where} is listed twice; take one of the entries out"
            yield Problem("duplicate segment id", text)
            continue
        seen.add(number)
        try:
            category = check_category(where, segment, rules.num_classes)
        except SampleError as error:
            yield Problem("category out of range", str(error))
            continue
        if number in drawn:
            yield category, ids == number
        else:
            text = f"{where} is listed, but no pixel has this id; draw it or take the entry out"
            yield Problem("segment without pixels", text)
    if drawn - seen:
        shown = ", ".join(map(str, sorted(drawn - seen)[:5]))
        text = f"{path}: pixels have the ids {shown}, which segments_info does not list; add them "
        yield Problem("pixels without segment", text + "or paint them black, which is no segment")


# What a sample has -> the function that reads it; the first one that fits
READERS: dict[str, Callable[[dict, tuple[int, int], Rules], Iterator[Found]]] = {
    "annotations": annotation_objects,
    "pan_seg_file_name": segment_objects,
    "sem_seg_file_name": label_objects,
}


def objects_of(sample: dict, size: tuple[int, int], rules: Rules) -> Iterator[Found]:
    """The classes and masks of a sample of any kind, and what is wrong with it."""
    for key, read in READERS.items():
        if key in sample:
            yield from read(sample, size, rules)
            return
    text = f"{sample['file_name']}: neither {', '.join(READERS)}; nothing can be learned from it"
    yield Problem("sample without ground truth", text)
