"""Masks as COCO's compressed run lengths, made where the masks are.

N masks of H x W pixels, R runs. A mask's runs go down its columns, left to right, and are lengths
of background and foreground in turn; the first is background, perhaps of length 0.

COCO's compression: a number is digits of 5 bits, the lowest first, each a character from "0" on; 32
says that another follows, 16 of the last is the sign. From the fourth on, a number is the
difference to the one before the last.
"""

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mask2former.layers.chunks import chunks
from mask2former.layers.packed_masks import PackedMasks

# Where a host looks for changes; small, so that they stay in its cache.
CHUNK_BYTES = 4 * 2**20
# A number y, or -1 - y, has as many digits as there are limits not above y, and one.
DIGIT_LIMITS = 1 << np.arange(4, 63, 5, dtype=np.int64)


def encode(masks: Tensor | PackedMasks) -> list[dict[str, Any]]:
    """Masks -> for each {"size": [H, W], "counts": bytes}, equal to what pycocotools gives.

    Shapes: (N,H,W) of bool, or of numbers that are 0 outside. Changes along the columns are looked
    for a row at a time, on the masks' device; only where they are comes to the host.
    """
    num_masks, height, width = masks.shape
    bytes_each = 2 * height * (masks.bits.shape[2] if isinstance(masks, PackedMasks) else width)
    encoded = []
    for chunk in chunks(num_masks, bytes_each, CHUNK_BYTES if masks.device.type == "cpu" else None):
        some = masks[chunk]
        changes = _changes(some).cpu().numpy()
        ends = np.arange(1, len(some) + 1, dtype=np.int64) * (height * width)
        changes = np.sort(np.concatenate([changes, ends]))
        runs = np.diff(changes, prepend=0)
        ends = np.searchsorted(changes, ends) + 1  # the first of equals: the next mask's are behind
        encoded += [{"size": [height, width], "counts": c} for c in _compress(runs, ends)]
    return encoded


def counts_of(counts: bytes | str) -> np.ndarray:
    """(R,) int64: the lengths of runs of which COCO's compressed `counts` tell.

    Raises:
        ValueError: the counts break off, or have characters that no digit has. Lengths that a
            picture cannot have are for the caller to find.
    """
    counts = counts.encode() if isinstance(counts, str) else counts
    digits = np.frombuffer(counts, np.uint8).astype(np.int64) - ord("0")
    last = np.flatnonzero(digits & 32 == 0)
    if len(last) == 0 or last[-1] != len(digits) - 1:
        raise ValueError("they break off")
    if digits.min() < 0 or digits.max() > 63:
        raise ValueError("they have characters that are none of COCO's")
    starts = np.append(0, last[:-1] + 1)
    place = np.arange(len(digits)) - starts.repeat(last - starts + 1)
    if place.max() > len(DIGIT_LIMITS):
        raise ValueError("they have a number of too many digits")
    numbers = np.add.reduceat((digits & 31) << 5 * place, starts)
    numbers -= (digits[last] & 16) << 5 * place[last] + 1
    numbers[1::2] = numbers[1::2].cumsum()
    numbers[2::2] = numbers[2::2].cumsum()
    return numbers


def _compress(runs: np.ndarray, ends: np.ndarray) -> list[bytes]:
    """(R,) runs of all masks, and where each mask's end in them (N,) -> N counts."""
    starts = np.append(0, ends[:-1])
    numbers = runs.copy()
    numbers[2:] -= runs[:-2]
    plain = (starts[:, None] + np.arange(3))[np.arange(3) < (ends - starts)[:, None]]
    numbers[plain] = runs[plain]
    num_digits = np.searchsorted(DIGIT_LIMITS, numbers ^ (numbers >> 63), side="right") + 1
    bounds = num_digits.cumsum()
    place = np.arange(bounds[-1]) - (bounds - num_digits).repeat(num_digits)
    digits = numbers.repeat(num_digits) >> 5 * place & 31 | 32
    digits[bounds - 1] &= 31
    text = (digits + ord("0")).astype(np.uint8).tobytes()
    bounds = [0, *bounds[ends - 1].tolist()]
    return [text[start:end] for start, end in pairwise(bounds)]


def _changes(masks: Tensor | PackedMasks) -> Tensor:
    """Where pixels differ from those before them in their columns: (C,) int64, in any order.

    Mask n's pixel (y,x) is n * H * W + x * H + y. Before a column comes the end of the one to its
    left, and before a mask comes background.
    """
    _, height, width = masks.shape
    packed = isinstance(masks, PackedMasks)
    if packed:
        last = PackedMasks(masks.bits[:, -1:], width).tensor  # (N,1,W)
        rows, before = masks.bits, PackedMasks.pack(last.roll(1, dims=2)).bits
    else:
        rows = masks.bool().view(torch.uint8)
        before = rows[:, -1:].roll(1, dims=2)
    num_bytes = rows.shape[2]
    before[..., 0] &= 127 if packed else 0  # the pixel that rolled in from the right
    # In words of 8 bytes, because most have no change in them.
    words = rows.new_zeros(-(-rows.numel() // 8) * 8)
    differ = words[: rows.numel()].view(rows.shape)
    torch.bitwise_xor(rows[:, :1], before, out=differ[:, :1])
    torch.bitwise_xor(rows[:, 1:], rows[:, :-1], out=differ[:, 1:])
    word = words.view(torch.int64).nonzero()[:, 0]
    which, byte = words.view(-1, 8)[word].nonzero().unbind(1)
    byte = word[which] * 8 + byte  # (C,), an index into rows
    x = byte % num_bytes
    if packed:
        change = PackedMasks(words[byte][None, :, None], 8)
        which, bit = change.tensor[0].nonzero().unbind(1)
        byte, x = byte[which], x[which] * 8 + bit
    row = byte // num_bytes  # n * H + y
    return (row // height * width + x) * height + row % height
