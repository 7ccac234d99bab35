"""A drawn street as a picture and a map of its segments, for layouts other than Cityscapes'."""

from dataclasses import dataclass

import cv2
import numpy as np

from mask2former.data.mini.street.scene import draw_scene

THINGS = ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")


@dataclass(frozen=True)
class Segment:
    """One thing, one group of things, or all of one stuff; names are Cityscapes'."""

    label: str
    is_thing: bool
    is_crowd: bool  # a group whose members are not told apart


@dataclass(frozen=True)
class LabelledScene:
    """A picture (H,W,3) uint8 RGB, its segment map (H,W) int32 with -1 for none, and the segments.

    Each segment has pixels.
    """

    image: np.ndarray
    segment_map: np.ndarray
    segments: list[Segment]


def draw_labelled(height: int, width: int, seed: tuple[int, ...]) -> LabelledScene:
    """The street of `seed`; what nobody names (ego vehicle, out of roi) belongs to no segment."""
    scene = draw_scene(height, width, seed)
    segment_map = np.full((height, width), -1, np.int32)
    segments: list[Segment] = []
    stuff: dict[str, int] = {}
    for label, polygon in scene.objects:  # from far to near: what is painted later hides
        if label == "license plate":  # a part of its car
            continue
        segment = Segment(
            label.removesuffix("group"),
            is_thing=label.removesuffix("group") in THINGS,
            is_crowd=label.endswith("group"),
        )
        if segment.label in ("ego vehicle", "out of roi"):
            index = -1
        elif not segment.is_thing and segment.label in stuff:
            index = stuff[segment.label]
        else:
            index = len(segments)
            segments.append(segment)
            stuff.setdefault(segment.label, index)
        cv2.fillPoly(segment_map, [np.array(polygon, np.int32)], index)
    seen = np.unique(segment_map[segment_map >= 0])
    renumber = np.full(len(segments) + 1, -1, np.int32)  # the last is that of -1
    renumber[seen] = np.arange(len(seen))
    return LabelledScene(scene.image, renumber[segment_map], [segments[i] for i in seen])
