"""Colours that are told apart easily, for drawing."""

import random

import numpy as np

__all__ = ["colormap", "random_color", "random_colors"]

# fmt: off
_COLORS = np.array([  # red, green, blue of one colour after the other, in thousandths
    0, 447, 741, 850, 325, 98, 929, 694, 125, 494, 184, 556, 466, 674, 188, 301, 745, 933,
    635, 78, 184, 300, 300, 300, 600, 600, 600, 1000, 0, 0, 1000, 500, 0, 749, 749, 0,
    0, 1000, 0, 0, 0, 1000, 667, 0, 1000, 333, 333, 0, 333, 667, 0, 333, 1000, 0, 667, 333, 0,
    667, 667, 0, 667, 1000, 0, 1000, 333, 0, 1000, 667, 0, 1000, 1000, 0, 0, 333, 500,
    0, 667, 500, 0, 1000, 500, 333, 0, 500, 333, 333, 500, 333, 667, 500, 333, 1000, 500,
    667, 0, 500, 667, 333, 500, 667, 667, 500, 667, 1000, 500, 1000, 0, 500, 1000, 333, 500,
    1000, 667, 500, 1000, 1000, 500, 0, 333, 1000, 0, 667, 1000, 0, 1000, 1000, 333, 0, 1000,
    333, 333, 1000, 333, 667, 1000, 333, 1000, 1000, 667, 0, 1000, 667, 333, 1000,
    667, 667, 1000, 667, 1000, 1000, 1000, 0, 1000, 1000, 333, 1000, 1000, 667, 1000, 333, 0, 0,
    500, 0, 0, 667, 0, 0, 833, 0, 0, 1000, 0, 0, 0, 167, 0, 0, 333, 0, 0, 500, 0, 0, 667, 0,
    0, 833, 0, 0, 1000, 0, 0, 0, 167, 0, 0, 333, 0, 0, 500, 0, 0, 667, 0, 0, 833, 0, 0, 1000,
    0, 0, 0, 143, 143, 143, 857, 857, 857, 1000, 1000, 1000,
]).reshape(-1, 3)
# fmt: on
_COLORS = (_COLORS / 1000).astype(np.float32)


def colormap(rgb: bool = False, maximum: int = 255) -> np.ndarray:
    """All colours, float32 (N,3), from 0 to `maximum` (255 or 1); BGR unless `rgb`."""
    assert maximum in (255, 1), maximum
    colors = _COLORS * maximum
    return colors if rgb else colors[:, ::-1]


def random_color(rgb: bool = False, maximum: int = 255) -> np.ndarray:
    """One of the colours, float32 (3,), drawn from numpy's random state."""
    return colormap(rgb, maximum)[np.random.randint(len(_COLORS))]


def random_colors(N: int, rgb: bool = False, maximum: int = 255) -> list[np.ndarray]:
    """`N` different ones of the colours, drawn from python's random state."""
    colors = colormap(rgb, maximum)
    return [colors[i] for i in random.sample(range(len(colors)), N)]
