"""Parts of resized pictures, worked out without the rest and equal to it.

H0 W0 size before, H W size after, h w of the part of it
"""

import math
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

Size = tuple[int, int]  # (height, width)
# Which pixel is the nearest one: what the official mappers resize as doubles follows torch's rule
# (classes), what they resize as uint8 follows Pillow's (panoptic colours, masks).
Rule = Literal["torch", "pillow"]
_SMALL = 128  # torch's, of H + W


class Window(NamedTuple):
    """A part of a picture."""

    top: int
    left: int
    height: int
    width: int

    @property
    def size(self) -> Size:
        return self.height, self.width


@lru_cache(maxsize=64)  # labels and a crop's tries ask for the same
def nearest(source: Size, size: Size, axis: int, rule: Rule) -> np.ndarray:
    """Along one axis of a picture (H0,W0) that becomes (H,W): (H,) or (W,), which pixel each is.

    Not to be written to.
    """
    old, new = source[axis], size[axis]
    if old == new:
        return np.arange(old)
    if rule == "torch":
        index = torch.arange(old, dtype=torch.float64)[None, None, None]
        # Of two that are as near, torch's kernel for small maps takes another than that for large
        # ones, as which it treats a line.
        if sum(size) <= _SMALL:
            return F.interpolate(index, (1, new), mode="nearest")[0, 0, 0].long().numpy()
        return F.interpolate(index[0], new, mode="nearest")[0, 0].long().numpy()
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
    if not _goes_by_parts((height, width), size, window, interp):
        right, bottom = window.left + window.width, window.top + window.height
        image = image.resize(size[::-1], interp)
        return image if window.size == size else image.crop((*window[1::-1], right, bottom))
    rows = _span(height, size[0], window.top, window.height)
    columns = _span(width, size[1], window.left, window.width)
    image = image.crop((columns.start, rows.seen_start, columns.stop, rows.seen_stop))
    if width != size[1]:
        box = (columns.low, 0, columns.high, image.height)
        image = image.resize((columns.length, image.height), interp, box)
    # Rows that nobody will see are black: what the second pass makes of them is cut off.
    top, bottom = rows.start - rows.seen_start, rows.stop - rows.seen_start
    image = image.crop((columns.before, top, columns.before + window.width, bottom))
    if height != size[0]:
        box = (0, rows.low, window.width, rows.high)
        image = image.resize((window.width, rows.length), interp, box)
    return image.crop((0, rows.before, window.width, rows.before + window.height))


def num_rows_seen(source: Size, size: Size, window: Window, interp: int) -> int:
    """How many of the first rows of a picture (H0,W0) `resize_part` looks at."""
    if not _goes_by_parts(source, size, window, interp):
        return source[0]
    return _span(source[0], size[0], window.top, window.height).seen_stop


def _goes_by_parts(source: Size, size: Size, window: Window, interp: int) -> bool:
    shrinks = [old - new for old, new in zip(source, size)]
    # Where the height shrinks much more, Pillow begins with the columns, from version 13 on.
    columns_first = shrinks[0] > max(0, 2 * shrinks[1])
    return interp == Image.Resampling.BILINEAR and not columns_first and window.size != size


class _Span(NamedTuple):
    """Of one axis: what is read of the picture, and what is made of it."""

    start: int  # the pixels that are read, of the picture
    stop: int
    seen_start: int  # those of them that the window needs
    seen_stop: int
    low: float  # where, in them, the pixels begin and end that are made
    high: float
    length: int  # how many are made
    before: int  # how many of them lie before the window


def _span(old: int, new: int, first: int, length: int) -> _Span:
    """The smallest part around `length` of `new` pixels whose borders are exact numbers.

    Pixel i of the new ones begins at i * old / new of the old ones. With a divisor that is a power
    of two, this is exact: so i is a multiple of what is odd in new / gcd(old, new).
    """
    end = first + length
    if old == new:
        return _Span(first, end, first, end, 0, length, length, 0)
    step = new // math.gcd(old, new)
    step //= step & -step
    low = first // step * step
    high = min(-(-end // step) * step, new)
    start, stop = _reached(old, new, low, high)
    borders = (place * old / new - start for place in (low, high))
    return _Span(start, stop, *_reached(old, new, first, end), *borders, high - low, first - low)


def _reached(old: int, new: int, first: int, end: int) -> tuple[int, int]:
    """From which to before which of `old` pixels bilinear resizing reads for these new ones."""
    reach = max(old / new, 1) + 1  # its triangle, and rounding
    return max(math.floor(first * old / new - reach), 0), min(
        math.ceil(end * old / new + reach), old
    )
