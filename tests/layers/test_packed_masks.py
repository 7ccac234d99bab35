import numpy as np
import pytest
import torch
from detectron2.structures import Instances

from mask2former.layers.packed_masks import PackedMasks


def random_masks(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) > 0.5


@pytest.mark.parametrize("shape", [(3, 5, 16), (2, 7, 13), (4, 1, 1), (0, 6, 9), (1, 3, 7)])
def test_nothing_is_lost(shape):
    masks = random_masks(*shape)
    packed = PackedMasks.pack(masks)
    assert packed.shape == shape and len(packed) == shape[0]
    assert packed.bits.nbytes == shape[0] * shape[1] * ((shape[2] + 7) // 8)
    assert packed.tensor.dtype == torch.bool and torch.equal(packed.tensor, masks)
    np.testing.assert_array_equal(packed.bits.numpy(), np.packbits(masks.numpy(), axis=2))


def test_one_at_a_time():
    masks = random_masks(4, 6, 11)
    packed = PackedMasks.pack(masks)
    assert all(torch.equal(one, mask) for one, mask in zip(packed, masks, strict=True))
    for index in (0, 2, -1, np.int64(3), torch.tensor(1)):
        assert torch.equal(packed[index], masks[index])
    with pytest.raises(IndexError):
        packed[4]


@pytest.mark.parametrize(
    "index",
    [
        slice(1, 3),
        slice(0, 0),
        [0, 2],
        torch.tensor([2, 2, 0]),
        torch.tensor([False, True, True, False]),
        torch.zeros(4, dtype=torch.bool),
    ],
    ids=str,
)
def test_some_are_packed(index):
    masks = random_masks(4, 6, 11)
    some = PackedMasks.pack(masks)[index]
    assert isinstance(some, PackedMasks) and torch.equal(some.tensor, masks[index])


def test_masks_are_set():
    masks = random_masks(4, 6, 11)
    packed = PackedMasks.zeros((4, 6, 11))
    assert packed.shape == (4, 6, 11) and not packed.tensor.any()
    packed[1:9] = masks[1:]
    packed[torch.tensor([0])] = masks[:1]
    assert torch.equal(packed.tensor, masks)


def test_as_an_array():
    masks = random_masks(3, 6, 11)
    packed = PackedMasks.pack(masks)
    np.testing.assert_array_equal(packed.numpy(), masks)
    array = np.asarray(packed)
    assert array.dtype == bool and (array == masks.numpy()).all()
    assert np.asarray(packed, dtype=np.uint8).dtype == np.uint8
    assert torch.equal(packed.any(dim=0), masks.any(dim=0))


def test_as_a_field_of_instances():
    masks = random_masks(5, 6, 11)
    instances = Instances((6, 11), pred_masks=PackedMasks.pack(masks), scores=torch.arange(5))
    assert torch.equal(instances[instances.scores > 2].pred_masks.tensor, masks[3:])
    assert torch.equal(instances[1].pred_masks.tensor, masks[1:2])
    moved = instances.to("cpu")
    assert moved.pred_masks.device == torch.device("cpu")
    joined = Instances.cat([moved[:2], moved[4:], moved[:0]])
    assert torch.equal(joined.pred_masks.tensor, masks[[0, 1, 4]])
    assert "num_instances=5" in repr(instances.pred_masks)


def test_pictures_of_different_sizes_are_not_joined():
    with pytest.raises(AssertionError, match="different widths"):
        PackedMasks.cat([PackedMasks.pack(random_masks(1, 4, n)) for n in (8, 7)])
