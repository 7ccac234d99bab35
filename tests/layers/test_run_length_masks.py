"""Runs say what the masks say: values by hand, frames, picking, travelling, devices."""

import itertools
import pickle

import numpy as np
import pytest
import torch
from detectron2.structures import Instances
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

from mask2former import device as devices
from mask2former.layers.run_length_masks import RunLengthMasks


def counts_of(mask):
    """By walking down the columns."""
    pixels = [bool(p) for column in zip(*mask.tolist()) for p in column]
    runs = [[value, len(list(run))] for value, run in itertools.groupby(pixels)]
    return np.array([0] * pixels[0] + [length for _, length in runs])


def runs_of(masks, size=None):
    content = tuple(masks.shape[1:])
    return RunLengthMasks.from_counts([counts_of(m) for m in masks], content, size or content)


def random_masks(num_masks=5, height=7, width=9, share=0.5, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.rand(num_masks, height, width, generator=g) < share


def test_by_hand():
    masks = RunLengthMasks.from_counts(
        [np.array([1, 2, 3]), np.array([0, 6]), np.array([6]), np.array([0, 1, 0, 2, 1, 2])],
        *[(2, 3)] * 2,
    )
    expected = [
        [[0, 1, 0], [1, 0, 0]],
        [[1, 1, 1], [1, 1, 1]],
        [[0, 0, 0], [0, 0, 0]],
        [[1, 1, 1], [1, 0, 1]],
    ]
    assert masks.tensor.dtype == torch.bool and masks.tensor.int().tolist() == expected
    assert masks.shape == (4, 2, 3) and len(masks) == 4 and masks.device.type == "cpu"
    assert masks.runs.tolist() == [1, 2, 3, 0, 0, 6, 6, 0, 0, 1, 0, 2, 1, 2]


@pytest.mark.parametrize("share", [0, 0.02, 0.5, 0.98, 1])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (8, 1), (7, 9)])
def test_nothing_is_lost(share, size):
    masks = random_masks(6, *size, share)
    assert torch.equal(runs_of(masks).tensor, masks)
    assert runs_of(masks).tensor.is_contiguous()
    assert all(torch.equal(one, mask) for one, mask in zip(runs_of(masks), masks, strict=True))


def test_beyond_the_content_is_nothing():
    masks = random_masks()
    runs = runs_of(masks, size=(10, 12))
    assert runs.shape == runs.tensor.shape == (5, 10, 12)
    for padded in (runs.tensor, runs.padded(32, 64)):
        assert torch.equal(padded[:, :7, :9], masks) and padded.sum() == masks.sum()
    assert runs.padded(32, 64).shape == (5, 32, 64)


@pytest.mark.parametrize(
    "index",
    [
        slice(1, 3),
        slice(0, 0),
        [4, 2],
        torch.tensor([2, 2, 0]),
        torch.tensor([False, True, True, False, True]),
        torch.zeros(5, dtype=torch.bool),
    ],
    ids=str,
)
def test_some_of_them(index):
    masks = random_masks()
    some = runs_of(masks, size=(10, 12))[index]
    assert isinstance(some, RunLengthMasks) and some.shape[1:] == (10, 12)
    assert torch.equal(some.tensor[:, :7, :9], masks[index])


def test_one_of_them():
    masks = random_masks()
    for index in (0, 4, -1, np.int64(3), torch.tensor(1)):
        assert torch.equal(runs_of(masks)[index], masks[index])
    with pytest.raises(IndexError):
        runs_of(masks)[5]


def test_none_at_all():
    masks = RunLengthMasks.from_counts([], (4, 5), (6, 7))
    assert len(masks) == 0 and masks.tensor.shape == (0, 6, 7) and masks.tensor.dtype == torch.bool
    assert list(masks) == [] and len(masks[:3]) == 0


def test_as_a_field_of_instances():
    masks = random_masks()
    instances = Instances((7, 9), gt_masks=runs_of(masks), gt_classes=torch.arange(5))
    picked = instances[instances.gt_classes > 2].to("cpu", non_blocking=True)
    assert torch.equal(picked.gt_masks.tensor, masks[3:])
    assert "num_masks=5" in repr(instances.gt_masks)


def test_they_travel_small():
    masks = torch.zeros(20, 300, 400, dtype=torch.bool)
    masks[:, 100:200, 50:350] = True
    runs = runs_of(masks, size=(640, 640))
    assert len(pickle.dumps(runs)) < masks.nbytes / 40
    assert torch.equal(pickle.loads(pickle.dumps(runs)).tensor, runs.tensor)
    (received,) = DataLoader([runs], batch_size=None, num_workers=1)
    assert torch.equal(received.tensor, runs.tensor) and received.runs.is_shared()


def test_they_are_drawn_on_a_device_that_can(monkeypatch):
    runs = runs_of(random_masks(), size=(10, 12))
    places = []

    class Places(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            if func.overloadpacket is torch.ops.aten.cumsum:
                places.append(result.device.type)
            return result

    for can in (False, True):
        entry = devices.Accelerator("meta", integer_sums=can)
        monkeypatch.setattr(devices, "ACCELERATORS", [entry, *devices.ACCELERATORS])
        moved = runs.to("meta")
        with Places():
            assert moved.tensor.shape == (5, 10, 12)
        assert moved.device.type == moved.tensor.device.type == moved[:2].tensor.device.type
        assert moved.device.type == "meta"
    assert places == ["cpu"] * 2 + ["meta"] * 2


def test_devices_that_can():
    assert devices.sums_integers("cpu") and devices.sums_integers("cuda")
    assert not devices.sums_integers("sdaa") and not devices.sums_integers("mps")
