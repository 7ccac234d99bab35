"""detectron2.structures behaves the same whichever detectron2 provides it."""

import copy
import pickle

import numpy as np
import pytest
import torch
from detectron2.structures import (
    BitMasks,
    Boxes,
    BoxMode,
    ImageList,
    Instances,
    PolygonMasks,
    ROIMasks,
    pairwise_ioa,
    pairwise_iou,
    polygons_to_bitmask,
)

REFUSED = (AssertionError, ValueError)
SQUARE = np.array([1.0, 1, 5, 1, 5, 4, 1, 4])
TRIANGLE = np.array([0.5, 0.5, 6.2, 0.5, 3, 5.0])


# ---------------------------------------------------------------------------------------- BoxMode
def test_box_mode_values_are_those_of_json_files():
    names = ["XYXY_ABS", "XYWH_ABS", "XYXY_REL", "XYWH_REL", "XYWHA_ABS"]
    assert [BoxMode[name].value for name in names] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor])
def test_box_mode_converts_there_and_back_in_the_given_type(kind):
    xywh = [2.0, 3.0, 10.0, 4.0]
    box = kind(xywh) if kind in (list, tuple) else kind([xywh])
    xyxy = BoxMode.convert(box, BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)
    assert type(xyxy) is type(box)
    assert np.asarray(xyxy).reshape(-1).tolist() == [2, 3, 12, 7]
    back = BoxMode.convert(xyxy, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)
    assert np.asarray(back).reshape(-1).tolist() == xywh
    assert np.asarray(box).reshape(-1).tolist() == xywh, "the input was changed"


def test_box_mode_keeps_integers_and_converts_rotated_boxes():
    assert BoxMode.convert([1, 2, 3, 4], BoxMode.XYXY_ABS, BoxMode.XYWH_ABS) == [1, 2, 2, 2]
    array = np.array([[1, 2, 3, 4]])
    assert BoxMode.convert(array, BoxMode.XYWH_ABS, BoxMode.XYXY_ABS).dtype == array.dtype
    rotated = BoxMode.convert([5.0, 4.0, 6.0, 2.0, 90.0], BoxMode.XYWHA_ABS, BoxMode.XYXY_ABS)
    assert rotated == pytest.approx([4, 1, 6, 7])
    upright = BoxMode.convert([1.0, 2, 4, 6], BoxMode.XYWH_ABS, BoxMode.XYWHA_ABS)
    assert upright == pytest.approx([3, 5, 4, 6, 0])


@pytest.mark.parametrize(
    ("box", "source", "target", "error"),
    [
        ([1, 2, 3], BoxMode.XYXY_ABS, BoxMode.XYWH_ABS, REFUSED),
        ([0.1, 0.2, 0.3, 0.4], BoxMode.XYXY_REL, BoxMode.XYXY_ABS, REFUSED),
        ([1, 2, 3, 4], BoxMode.XYXY_ABS, BoxMode.XYWHA_ABS, NotImplementedError),
    ],
)
def test_box_mode_refuses(box, source, target, error):
    with pytest.raises(error):
        BoxMode.convert(box, source, target)


# ------------------------------------------------------------------------------------------ Boxes
def boxes():
    return Boxes(torch.tensor([[-1.0, 2, 30, 4], [5, 5, 5, 9], [1, 1, 3, 3]]))


def test_boxes_measure():
    assert boxes().area().tolist() == [62, 0, 4]
    assert boxes().nonempty().tolist() == [True, False, True]
    assert boxes().nonempty(threshold=2.0).tolist() == [False, False, False]
    assert boxes().inside_box((8, 10)).tolist() == [False, False, True]
    assert boxes().inside_box((8, 10), 2).tolist() == [False, True, True]
    assert boxes().get_centers().tolist() == [[14.5, 3], [5, 7], [2, 2]]
    assert boxes().device == torch.device("cpu")


def test_boxes_change_in_place_and_only_themselves():
    original = boxes()
    changed = original.clone()
    changed.clip((8, 10))
    assert changed.tensor.tolist() == [[0, 2, 10, 4], [5, 5, 5, 8], [1, 1, 3, 3]]
    changed.scale(2, 3)
    assert changed.tensor[0].tolist() == [0, 6, 20, 12]
    assert torch.equal(original.tensor, boxes().tensor)
    with pytest.raises(AssertionError):
        Boxes(torch.tensor([[float("nan"), 0, 1, 1]])).clip((3, 3))


def test_boxes_index_and_concatenate():
    rows = boxes()
    assert rows[0].tensor.shape == (1, 4)
    assert rows[-1].tensor.tolist() == [[1, 1, 3, 3]]
    assert rows[torch.tensor([True, False, True])].tensor.tolist() == rows.tensor[[0, 2]].tolist()
    assert len(rows[1:]) == 2
    assert [row.shape for row in rows] == [(4,)] * 3
    assert len(Boxes.cat([rows, rows])) == 6
    assert Boxes.cat([]).tensor.shape == (0, 4)
    assert Boxes([]).tensor.shape == (0, 4)
    assert Boxes(np.ones((2, 4), dtype=np.int64)).tensor.dtype == torch.float32
    with pytest.raises(AssertionError):
        Boxes(torch.zeros(2, 5))


def test_pairwise_overlaps_against_counted_pixels():
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 12, size=(9, 2, 2))
    array = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    pixels = np.zeros((9, 12, 12), dtype=bool)
    for mask, (x0, y0, x1, y1) in zip(pixels, array):
        mask[y0:y1, x0:x1] = True
    first, second = pixels[:4, None], pixels[None, 4:]
    common = (first & second).sum(axis=(2, 3))
    union = (first | second).sum(axis=(2, 3))
    area = np.broadcast_to(second.sum(axis=(2, 3)), common.shape)
    left, right = (Boxes(torch.from_numpy(part)) for part in (array[:4], array[4:]))
    assert common.any()
    iou = np.divide(common, union, out=np.zeros(common.shape), where=union > 0)
    ioa = np.divide(common, area, out=np.zeros(common.shape), where=area > 0)
    np.testing.assert_allclose(pairwise_iou(left, right), iou, atol=1e-6)
    np.testing.assert_allclose(pairwise_ioa(left, right), ioa, atol=1e-6)


# -------------------------------------------------------------------------------------- Instances
def instances(size=(10, 20)):
    return Instances(
        size,
        number=torch.arange(3),
        boxes=boxes(),
        masks=BitMasks(torch.eye(3).expand(3, 3, 3)),
        polygons=PolygonMasks([[SQUARE], [TRIANGLE], []]),
    )


def test_instances_fields():
    one = instances()
    assert one.image_size == (10, 20)
    assert len(one) == 3
    assert one.has("number") and not one.has("other")
    assert list(one.get_fields()) == ["number", "boxes", "masks", "polygons"]
    one.names = ["a", "b", "c"]
    assert one.get("names") == ["a", "b", "c"]
    one.remove("names")
    assert not one.has("names")
    one.number = torch.tensor([5, 6, 7])
    assert one.number.tolist() == [5, 6, 7]
    with pytest.raises(AssertionError):
        one.set("short", torch.zeros(2))
    with pytest.raises(AttributeError):
        _ = one.other
    with pytest.raises(KeyError):
        one.get("other")
    with pytest.raises(NotImplementedError):
        len(Instances((1, 1)))
    with pytest.raises(NotImplementedError):
        iter(one)
    assert "num_instances=3, image_height=10, image_width=20" in str(one)


@pytest.mark.parametrize(
    ("item", "kept"),
    [
        (1, [1]),
        (-1, [2]),
        (slice(0, 2), [0, 1]),
        (torch.tensor([True, False, True]), [0, 2]),
        (torch.tensor([2, 0]), [2, 0]),
        (torch.zeros(3, dtype=torch.bool), []),
    ],
)
def test_instances_index_every_field(item, kept):
    picked = instances()[item]
    assert picked.number.tolist() == kept
    assert picked.boxes.tensor.tolist() == boxes().tensor[kept].tolist()
    assert len(picked.masks) == len(kept)
    assert [len(polygons) for polygons in picked.polygons] == [[1, 1, 0][i] for i in kept]
    assert picked.image_size == (10, 20)


def test_instances_index_error_ends_a_loop():
    with pytest.raises(IndexError):
        instances()[3]


def test_instances_concatenate():
    joined = Instances.cat([instances(), instances()])
    assert len(joined) == 6
    assert joined.number.tolist() == [0, 1, 2, 0, 1, 2]
    assert isinstance(joined.boxes, Boxes) and len(joined.polygons) == 6
    named = Instances((2, 2), names=["a"])
    assert Instances.cat([named, named]).names == ["a", "a"]
    with pytest.raises(AssertionError):
        Instances.cat([instances(), instances((5, 5))])
    with pytest.raises(AssertionError):
        Instances.cat([])
    array = Instances((2, 2), array=np.zeros(1))
    with pytest.raises(ValueError):
        Instances.cat([array, array])


def test_instances_move_copy_and_pickle():
    moved = instances().to("cpu")
    assert moved.number.tolist() == [0, 1, 2]
    for copied in (copy.deepcopy(moved), pickle.loads(pickle.dumps(moved))):
        assert copied.number.tolist() == [0, 1, 2]
        assert copied.image_size == (10, 20)


# -------------------------------------------------------------------------------------- ImageList
@pytest.mark.parametrize(
    ("divisibility", "constraints", "size"),
    [
        (0, None, (6, 7)),
        (4, None, (8, 8)),
        (32, None, (32, 32)),
        (0, {"square_size": 16}, (16, 16)),
        (8, {"square_size": 10}, (16, 16)),
        (4, {"size_divisibility": 16}, (16, 16)),
    ],
)
def test_image_list_pads_right_and_bottom(divisibility, constraints, size):
    images = [torch.full((3, 5, 7), 2.0), torch.full((3, 6, 4), 3.0)]
    batch = ImageList.from_tensors(images, divisibility, -1.0, constraints)
    assert batch.tensor.shape == (2, 3, *size)
    assert [tuple(s) for s in batch.image_sizes] == [(5, 7), (6, 4)]
    assert len(batch) == 2
    for index, image in enumerate(images):
        assert torch.equal(batch[index], image)
        padding = batch.tensor[index].sum() - image.sum()
        assert padding == -(batch.tensor[index].numel() - image.numel())
    assert batch.to(torch.float64).tensor.dtype == torch.float64


def test_image_list_keeps_dtype_and_gradient_and_refuses_a_mixture():
    labels = ImageList.from_tensors([torch.ones(3, 3, dtype=torch.uint8)], 4, 255)
    assert labels.tensor.dtype == torch.uint8 and labels.tensor[0, 3, 3] == 255
    image = torch.ones(1, 2, 3, requires_grad=True)
    ImageList.from_tensors([image], 4).tensor.sum().backward()
    assert torch.equal(image.grad, torch.ones(1, 2, 3))
    with pytest.raises(AssertionError):
        ImageList.from_tensors([torch.ones(3, 3, 3), torch.ones(1, 3, 3)])
    with pytest.raises(AssertionError):
        ImageList.from_tensors([])


# ------------------------------------------------------------------------------------------ masks
def test_polygons_become_bitmaps():
    expected = np.zeros((6, 8), dtype=bool)
    expected[1:4, 1:5] = True
    mask = polygons_to_bitmask([SQUARE], 6, 8)
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, expected)
    assert polygons_to_bitmask([], 6, 8).sum() == 0
    shifted = np.roll(expected, (1, 1), (0, 1))
    np.testing.assert_array_equal(
        polygons_to_bitmask([SQUARE, SQUARE + 1], 6, 8), expected | shifted
    )
    bitmaps = BitMasks.from_polygon_masks(PolygonMasks([[SQUARE], []]), 6, 8)
    np.testing.assert_array_equal(bitmaps.tensor, [expected, np.zeros((6, 8))])
    assert BitMasks.from_polygon_masks([[SQUARE]], 6, 8).tensor.shape == (1, 6, 8)


def test_bitmasks():
    tensor = torch.zeros(3, 6, 8)
    tensor[0, 1:3, 2:5] = 1
    tensor[2, 0, 0] = 1
    masks = BitMasks(tensor)
    assert masks.tensor.dtype == torch.bool
    assert tuple(masks.image_size) == (6, 8)
    assert masks.nonempty().tolist() == [True, False, True]
    found = masks.get_bounding_boxes().tensor
    assert found.tolist() == [[2, 1, 5, 3], [0, 0, 0, 0], [0, 0, 1, 1]]
    assert masks[0].tensor.shape == (1, 6, 8)
    assert len(masks[torch.tensor([True, False, True])]) == 2
    assert [mask.shape for mask in masks] == [(6, 8)] * 3
    assert len(BitMasks.cat([masks, masks[1:]])) == 5
    assert masks.to("cpu").device == torch.device("cpu")
    assert BitMasks(np.zeros((2, 3, 4))).tensor.dtype == torch.bool
    assert BitMasks(torch.zeros(0, 4, 4)).get_bounding_boxes().tensor.shape == (0, 4)
    with pytest.raises(AssertionError):
        BitMasks(torch.zeros(3, 3))


def test_polygon_masks():
    masks = PolygonMasks([[SQUARE], [torch.tensor(TRIANGLE), SQUARE + 1], []])
    assert masks.polygons[1][0].dtype == np.float64
    assert masks.area().tolist() == pytest.approx([12, 0.5 * 5.7 * 4.5 + 12, 0])
    assert masks.nonempty().tolist() == [True, True, False]
    assert masks.get_bounding_boxes().tensor[0].tolist() == [1, 1, 5, 4]
    assert masks.get_bounding_boxes().tensor[1].tolist() == pytest.approx([0.5, 0.5, 6.2, 5])
    assert not masks.get_bounding_boxes().nonempty()[2]
    for item in (slice(0, 2), [0, 1], torch.tensor([0, 1]), torch.tensor([True, True, False])):
        assert [len(polygons) for polygons in masks[item]] == [1, 2]
    assert len(masks[2].polygons[0]) == 0
    assert len(PolygonMasks.cat([masks, masks])) == 6
    assert masks.to("cpu").device == torch.device("cpu")


@pytest.mark.parametrize("polygons", [SQUARE, [SQUARE], [[np.zeros(5)]], [[np.zeros(4)]]])
def test_polygon_masks_refuse(polygons):
    with pytest.raises(ValueError):
        PolygonMasks(polygons)


def test_polygon_masks_crop():
    masks = PolygonMasks([[SQUARE], [SQUARE], []])
    windows = torch.tensor([[1.0, 1, 5, 4], [0, 0, 8, 6], [0, 0, 1, 1]])
    crops = masks.crop_and_resize(windows, 4)
    assert crops.dtype == torch.bool and crops.shape == (3, 4, 4)
    assert crops[0].all() and not crops[2].any()
    assert 0 < crops[1].sum() < 16
    with pytest.raises(AssertionError):
        masks.crop_and_resize(windows[:1], 4)


# The real detectron2's answer (torchvision's RoIAlign) for the masks and boxes below.
CROPS = """
0000000 0111110 0111110 0111110 0111110 0111110 0000000
0011101 0011101 0110100 0010111 0001000 0100111 0000011
"""


def test_bitmasks_crop_as_roi_align():
    generator = torch.Generator().manual_seed(0)
    tensor = torch.zeros(2, 12, 16, dtype=torch.bool)
    tensor[0, 2:9, 3:12] = True
    tensor[1] = torch.rand(12, 16, generator=generator) > 0.4
    windows = torch.tensor([[1.3, 0.7, 14.2, 10.9], [-2.0, 3.0, 9.5, 13.0]])
    crops = BitMasks(tensor).crop_and_resize(windows, 7)
    golden = [[[int(v) for v in row] for row in line.split()] for line in CROPS.split("\n") if line]
    assert crops.dtype == torch.bool
    assert crops.int().tolist() == golden
    whole = BitMasks(tensor[1:, :, :12]).crop_and_resize(torch.tensor([[0.0, 0, 12, 12]]), 12)
    assert torch.equal(whole[0], tensor[1, :, :12])


def test_roi_masks_paste():
    masks = ROIMasks(torch.tensor([[[1.0, 0.0], [1.0, 0.0]]]))
    pasted = masks.to_bitmasks(Boxes(torch.tensor([[2.0, 1, 6, 5]])), 6, 8)
    expected = torch.zeros(1, 6, 8, dtype=torch.bool)
    expected[0, 1:5, 2:4] = True
    assert torch.equal(pasted.tensor, expected)
    assert len(masks) == 1 and masks[:0].tensor.shape == (0, 2, 2)
    with pytest.raises(ValueError):
        ROIMasks(torch.zeros(2, 2))
    with pytest.raises(TypeError):  # they have no boxes
        BitMasks.from_roi_masks(masks, 6, 8)
