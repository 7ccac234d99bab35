"""Segment ids as the colours of PNG files: id = R + 256 G + 256 * 256 B. 0 is no segment."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

_FACTORS = (1, 256, 256 * 256)
_MAX_DISTANCE = 30  # of a segment's colour to its category's, in each channel
_MAX_DRAWS = 1000  # before colours farther away are tried


def rgb2id(color: np.ndarray | list | tuple) -> np.ndarray | int:
    """The ids of colours.

    Shapes: (H,W,3) -> (H,W), of int32 for uint8 and of the array's own type otherwise; one colour
    (3,) -> int
    """
    red, green, blue = _FACTORS
    if isinstance(color, np.ndarray) and color.ndim == 3:
        if color.dtype == np.uint8:
            color = color.astype(np.int32)
        return red * color[..., 0] + green * color[..., 1] + blue * color[..., 2]
    return sum(factor * int(channel) for factor, channel in zip(_FACTORS, color))


def id2rgb(id_map: np.ndarray | int) -> np.ndarray | list[int]:
    """The colours of ids up to 256**3 - 1.

    Shapes: (...) -> (...,3) uint8; an int -> a list of 3
    """
    channels = [id_map // factor % 256 for factor in _FACTORS]
    if isinstance(id_map, np.ndarray):
        return np.stack(channels, axis=-1).astype(np.uint8)
    return channels


class IdGenerator:
    """Ids whose colours are like those of their category, no two segments alike.

    All segments of a stuff category share one id, that of its colour.

    Args:
        categories: category id -> {"isthing", "color"}, of all categories.
    """

    def __init__(self, categories: dict[int, dict[str, Any]]):
        self.categories = categories
        self.taken_colors = {(0, 0, 0)}
        self.taken_colors |= {tuple(c["color"]) for c in categories.values() if not c["isthing"]}
        self._random = np.random.default_rng(0)

    def get_color(self, cat_id: int) -> tuple[int, int, int]:
        """The colour of the next segment of a category."""
        base = tuple(self.categories[cat_id]["color"])
        if not self.categories[cat_id]["isthing"]:
            return base
        color, distance, draws = base, _MAX_DISTANCE, 0
        while color in self.taken_colors:
            offset = self._random.integers(-distance, distance, size=3, endpoint=True)
            color = tuple(np.clip(base + offset, 0, 255).tolist())
            draws += 1
            distance = min(255, _MAX_DISTANCE * (1 + draws // _MAX_DRAWS))
        self.taken_colors.add(color)
        return color

    def get_id(self, cat_id: int) -> int:
        return rgb2id(self.get_color(cat_id))

    def get_id_and_color(self, cat_id: int) -> tuple[int, tuple[int, int, int]]:
        color = self.get_color(cat_id)
        return rgb2id(color), color


def save_json(d: Any, file: str) -> None:
    with open(file, "w", encoding="utf-8") as f:
        json.dump(d, f)
