"""Parts of resized pictures, worked out without the rest and equal to it.

H0 W0 size before, H W size after, h w of the part of it
"""

import math
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

Size = tuple[int, int]  # (height, width)
# Which pixel is the nearest one: what the official mappers resize as doubles follows torch's rule
# (classes), what they resize as uint8 follows Pillow's (panoptic colours, masks).
Rule = Literal["torch", "pillow"]


class Window(NamedTuple):
    """A part of a picture."""

    top: int
    left: int
    height: int
    width: int

    @property
    def size(self) -> Size:
        return self.height, self.width


def nearest(old: int, new: int, rule: Rule) -> np.ndarray:
    """(new,) which of `old` pixels each of `new` ones is, along one axis."""
    if old == new:
        return np.arange(old)
    if rule == "torch":
        index = torch.arange(old, dtype=torch.float64)[None, None]
        return F.interpolate(index, new, mode="nearest")[0, 0].long().numpy()
    row = Image.fromarray(np.arange(old, dtype=np.int32)[None])
    return np.asarray(row.resize((new, 1), Image.Resampling.NEAREST))[0]


def resize_part(
    image: Image.Image, size: Size, window: Window, interp: int = Image.Resampling.BILINEAR
) -> Image.Image:
    """What of an image (H0,W0), resized to `size` (H, W), lies in a window of that.

    To the bit what cutting it out of the whole gives. Pillow resizes parts by itself (`box`), but
    takes their borders in single precision, and the size of the part may change which axis comes
    first. So each axis is a pass of its own, between borders that single precision has exactly.
    """
    width, height = image.size
    whole = Window(0, 0, *size)
    if window == whole:
        return image.resize(size[::-1], interp)
    # From version 13 on, Pillow may begin with the columns where the height shrinks much more.
    columns_first = height - size[0] > max(0, 2 * (width - size[1]))
    if interp != Image.Resampling.BILINEAR or columns_first:
        return _crop(image.resize(size[::-1], interp), window)
    rows = _part(height, size[0], window.top, window.height)
    columns = _part(width, size[1], window.left, window.width)
    num_rows = rows.stop - rows.start
    image = image.crop((columns.start, rows.start, columns.stop, rows.stop))
    if width != size[1]:
        box = (columns.low, 0, columns.high, num_rows)
        image = image.resize((columns.length, num_rows), interp, box)
    image = image.crop((columns.before, 0, columns.before + window.width, num_rows))
    if height != size[0]:
        box = (0, rows.low, window.width, rows.high)
        image = image.resize((window.width, rows.length), interp, box)
    return image.crop((0, rows.before, window.width, rows.before + window.height))


class _Part(NamedTuple):
    """Of one axis: what is read of the picture, and what is made of it."""

    start: int  # the pixels that are read, of the picture
    stop: int
    low: float  # where, in them, the pixels begin and end that are made
    high: float
    length: int  # how many are made
    before: int  # how many of them lie before the window


def _part(old: int, new: int, first: int, length: int) -> _Part:
    """The smallest part around `length` of `new` pixels whose borders are exact numbers.

    Pixel i of the new ones begins at i * old / new of the old ones. With a divisor that is a power
    of two, this is exact: so i is a multiple of what is odd in new / gcd(old, new).
    """
    if old == new:
        return _Part(first, first + length, 0, length, length, 0)
    step = new // math.gcd(old, new)
    step //= step & -step
    low = first // step * step
    high = min(-(-(first + length) // step) * step, new)
    reach = max(old / new, 1) + 1  # the triangle of bilinear resizing, and rounding
    start = max(math.floor(low * old / new - reach), 0)
    stop = min(math.ceil(high * old / new + reach), old)
    borders = (place * old / new - start for place in (low, high))
    return _Part(start, stop, *borders, high - low, first - low)


def _crop(image: Image.Image, window: Window) -> Image.Image:
    right, bottom = window.left + window.width, window.top + window.height
    return image.crop((window.left, window.top, right, bottom))
