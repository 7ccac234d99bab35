"""Run lengths, byte for byte those of pycocotools."""

import numpy as np
import pycocotools.mask
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mask2former.layers import run_lengths
from mask2former.layers.packed_masks import PackedMasks
from mask2former.layers.run_lengths import counts_of, encode


def of_pycocotools(masks):
    return [pycocotools.mask.encode(np.asfortranarray(m, np.uint8)) for m in masks.numpy()]


def with_pixels(height, width, *pixels):
    mask = torch.zeros(height, width, dtype=torch.bool)
    for y, x in pixels:
        mask[y, x] = True
    return mask


def rectangle(height, width, top, left, bottom, right):
    mask = torch.zeros(height, width, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


CASES = {
    "empty": torch.zeros(3, 7, 13, dtype=torch.bool),
    "full": torch.ones(3, 7, 13, dtype=torch.bool),
    "full beside empty": torch.arange(5).view(5, 1, 1).expand(5, 4, 9) % 2 == 1,
    "single pixels": torch.stack(
        [with_pixels(9, 11, p) for p in [(0, 0), (8, 10), (0, 10), (8, 0), (4, 5)]]
    ),
    "a column's end and the next one's begin": torch.stack(
        [with_pixels(5, 9, (4, 7), (0, 8)), with_pixels(5, 9, (4, 8), (0, 0))]
    ),
    "one pixel wide": torch.tensor([[[1], [1], [0], [1]], [[0], [1], [1], [0]]]).bool(),
    "one pixel high": torch.tensor([[[1, 1, 0, 1, 0, 0, 0, 0, 1]]]).bool(),
    "one pixel": torch.tensor([[[True]], [[False]]]),
    "numbers of several digits": torch.stack(
        [
            rectangle(700, 800, 1, 1, 2, 800),
            rectangle(700, 800, 100, 7, 699, 500),
            rectangle(700, 800, 699, 0, 700, 800) | rectangle(700, 800, 3, 399, 690, 400),
            rectangle(700, 800, 0, 799, 700, 800),
        ]
    ),
    "stripes": (torch.arange(40) % 2).bool().expand(2, 30, 40),
    "none": torch.zeros(0, 5, 6, dtype=torch.bool),
}


@pytest.mark.parametrize("masks", CASES.values(), ids=CASES)
def test_bytes_are_those_of_pycocotools(masks):
    expected = of_pycocotools(masks)
    assert encode(masks) == expected
    assert encode(PackedMasks.pack(masks)) == expected
    for mask in expected:
        counts = counts_of(mask["counts"])
        assert counts.dtype == np.int64 and counts.sum() == masks[0].numel()
        np.testing.assert_array_equal(counts_of(mask["counts"].decode()), counts)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 30), st.integers(1, 30)),
    share=st.sampled_from([0.01, 0.1, 0.5, 0.97]),
    seed=st.integers(0, 2**16),
)
def test_any_masks(shape, share, seed):
    masks = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < share
    expected = of_pycocotools(masks)
    assert encode(masks) == expected
    assert encode(PackedMasks.pack(masks)) == expected


def test_neither_chunks_nor_strides_matter(monkeypatch):
    masks = torch.rand(7, 24, 18, generator=torch.Generator().manual_seed(0)) < 0.4
    expected = of_pycocotools(masks)
    monkeypatch.setattr(run_lengths, "CHUNK_BYTES", 2 * 24 * 18 * 3)
    assert encode(masks) == expected
    assert encode(masks.transpose(1, 2).contiguous().transpose(1, 2)) == expected


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.lists(st.integers(0, 2**28), min_size=1, max_size=12))
def test_any_runs_come_back(runs):
    """Of longer ones pycocotools writes digits beyond the memory that it has for them."""
    rle = pycocotools.mask.frPyObjects({"size": [1, sum(runs)], "counts": runs}, 1, sum(runs))
    np.testing.assert_array_equal(counts_of(rle["counts"]), runs)
    assert run_lengths._compress(np.array(runs), np.array([len(runs)])) == [rle["counts"]]


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        (b"", "break off"),
        (b"5P", "break off"),
        (b"5 1", "characters"),
        (b"o" * 40 + b"1", "digits"),
    ],
)
def test_what_is_no_compression_is_refused(counts, said):
    with pytest.raises(ValueError, match=said):
        counts_of(counts)
