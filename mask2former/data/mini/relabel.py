"""A drawn street under the classes of another dataset than Cityscapes."""

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

import cv2
import numpy as np

from mask2former.data.mini.labelled import LabelledScene

_MIN_PIXELS = 16  # of a part that is a thing of its own; smaller ones belong to the largest


class Relabelled(NamedTuple):
    """A segment: its class there, its mask (H,W) bool, and whether it is a group of things."""

    label: int
    mask: np.ndarray
    is_crowd: bool


def relabel(
    scene: LabelledScene, labels: Mapping[str, int], things: Collection[int] = ()
) -> Iterator[Relabelled]:
    """The segments of a scene that have a label in another dataset. Their masks do not overlap.

    Args:
        labels: Cityscapes' name -> label; what is not in it is left out.
        things: labels of which each instance is a segment. All fences, say, are one segment of
            Cityscapes; if their label is among these, each connected part becomes one.
    """
    for index, segment in enumerate(scene.segments):
        label = labels.get(segment.label)
        if label is None:
            continue
        mask = scene.segment_map == index
        if label in things and not segment.is_thing:
            yield from (Relabelled(label, part, False) for part in _connected_parts(mask))
        else:
            yield Relabelled(label, mask, segment.is_crowd)


def _connected_parts(mask: np.ndarray) -> Iterator[np.ndarray]:
    _, parts = cv2.connectedComponents(mask.astype(np.uint8))  # (H,W), 0 outside of the mask
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    largest = int(sizes.argmax())
    small = np.flatnonzero(sizes < _MIN_PIXELS)
    parts[mask & np.isin(parts, small)] = largest
    for part in np.unique(parts[mask]).tolist():
        yield parts == part
