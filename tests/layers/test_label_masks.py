"""One map of labels says what the masks say: values by hand, frames, picking, travelling."""

import pickle

import pytest
import torch
from detectron2.structures import Instances
from torch.utils.data import DataLoader

from mask2former.layers.label_masks import LabelMasks

LABELS = [[1, 1, 2], [0, 2, 2]]


def masks_of(dtype=torch.uint8, size=(2, 3), values=(2, 1, 5)):
    return LabelMasks(torch.tensor(LABELS, dtype=dtype), torch.tensor(values, dtype=dtype), size)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_each_mask_is_where_its_value_is(dtype):
    masks = masks_of(dtype)
    expected = torch.tensor(
        [[[0, 0, 1], [0, 1, 1]], [[1, 1, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]]], dtype=torch.bool
    )
    assert masks.shape == (3, 2, 3) and len(masks) == 3 and masks.device.type == "cpu"
    assert masks.tensor.dtype == torch.bool and torch.equal(masks.tensor, expected)
    assert all(torch.equal(one, mask) for one, mask in zip(masks, expected, strict=True))


def test_beyond_the_content_is_nothing():
    """Neither for the value that padding might have."""
    masks = masks_of(size=(4, 5), values=(0, 1))
    assert masks.shape == masks.tensor.shape == (2, 4, 5)
    assert torch.equal(masks.tensor[:, :2, :3], masks_of(values=(0, 1)).tensor)
    assert masks.tensor.sum() == masks_of(values=(0, 1)).tensor.sum() == 3
    wide = masks.padded(6, 9)
    assert wide.shape == (2, 6, 9) and wide.sum() == 3
    assert torch.equal(wide[:, :4, :5], masks.tensor)
    assert torch.equal(masks[1], masks.tensor[1])


@pytest.mark.parametrize(
    "index",
    [slice(1, 3), slice(0, 0), [0, 2], torch.tensor([2, 2, 0]), torch.tensor([False, True, True])],
    ids=str,
)
def test_some_of_them(index):
    masks = masks_of(size=(4, 5))
    some = masks[index]
    assert isinstance(some, LabelMasks) and torch.equal(some.tensor, masks.tensor[index])
    assert some.labels is masks.labels


def test_none_at_all():
    masks = masks_of(values=())
    assert len(masks) == 0 and masks.tensor.shape == (0, 2, 3) and masks.tensor.dtype == torch.bool
    assert list(masks) == []


def test_as_a_field_of_instances():
    instances = Instances((2, 3), gt_masks=masks_of(), gt_classes=torch.tensor([7, 8, 9]))
    picked = instances[instances.gt_classes > 7].to("cpu", non_blocking=True)
    assert torch.equal(picked.gt_masks.tensor, masks_of().tensor[1:])
    assert "num_masks=3" in repr(instances.gt_masks)


def test_they_travel_small():
    masks = LabelMasks(
        torch.zeros(300, 400, dtype=torch.uint8), torch.arange(50).byte(), (640, 640)
    )
    assert len(pickle.dumps(masks)) < 1.02 * 300 * 400
    assert torch.equal(pickle.loads(pickle.dumps(masks)).tensor, masks.tensor)
    (received,) = DataLoader([masks_of()], batch_size=None, num_workers=1)
    assert torch.equal(received.tensor, masks_of().tensor)
    assert received.labels.is_shared()
