"""Transforming annotations and making Instances of them, on either provider of detectron2."""

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from d2_inputs import POLYGON, REFUSED, annotation
from detectron2.data import MetadataCatalog
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, Boxes, BoxMode, Instances, PolygonMasks

MASK = (np.random.RandomState(0).rand(4, 6) > 0.4).astype(np.uint8)
RLE = mask_util.encode(np.asfortranarray(MASK))
FLIP_AND_DOUBLE = T.TransformList([T.HFlipTransform(6), T.ResizeTransform(4, 6, 8, 12)])


def test_boxes_and_polygons_follow_the_image():
    found = utils.transform_instance_annotations(annotation(), FLIP_AND_DOUBLE, (8, 12))
    assert found["bbox_mode"] == BoxMode.XYXY_ABS
    assert found["bbox"].tolist() == [2, 2, 10, 8]
    assert [p.tolist() for p in found["segmentation"]] == [[10, 2, 2, 2, 2, 8, 10, 8]]
    assert found["category_id"] == 3


def test_rle_becomes_a_mask_that_follows_the_image():
    found = utils.transform_instance_annotations(
        annotation(segmentation=RLE), FLIP_AND_DOUBLE, (8, 12)
    )
    assert (found["segmentation"] == MASK[:, ::-1].repeat(2, axis=0).repeat(2, axis=1)).all()


def test_boxes_are_clipped_to_the_image():
    for box, expected in (
        ([-5, -5, 100, 2], [0, 0, 6, 2]),
        ([-5, -5, -2, -2], [0, 0, 0, 0]),
        ([7, 1, 9, 9], [6, 1, 6, 4]),
    ):
        one = annotation(bbox=box, bbox_mode=BoxMode.XYXY_ABS)
        found = utils.transform_instance_annotations(one, T.NoOpTransform(), (4, 6))
        assert found["bbox"].tolist() == expected


def test_transforms_may_be_a_list():
    found = utils.transform_instance_annotations(annotation(), [T.HFlipTransform(6)], (4, 6))
    assert found["bbox"].tolist() == [1, 1, 5, 4]


def test_other_segmentations_are_refused():
    for segmentation in (MASK, "1 2 3"):
        with pytest.raises(ValueError):
            one = annotation(segmentation=segmentation)
            utils.transform_instance_annotations(one, T.NoOpTransform(), (4, 6))


def test_mirrored_keypoints_change_sides():
    keypoints = [1, 1, 2, 4, 3, 2, 5, 9, 1]  # nose, left eye, right eye (outside)
    found = utils.transform_instance_annotations(
        annotation(keypoints=keypoints), FLIP_AND_DOUBLE, (8, 12), keypoint_hflip_indices=[0, 2, 1]
    )
    assert found["keypoints"].tolist() == [[10, 2, 2], [0, 0, 0], [4, 6, 2]]
    double = [T.ResizeTransform(4, 6, 8, 12)]
    found = utils.transform_instance_annotations(
        annotation(keypoints=keypoints), double, (8, 12), keypoint_hflip_indices=[0, 2, 1]
    )
    assert found["keypoints"].tolist() == [[2, 2, 2], [8, 6, 2], [0, 0, 0]]


@pytest.mark.parametrize("indices", [None, [1, 0]], ids=["none", "too few"])
def test_mirrored_keypoints_need_the_indices_of_all(indices):
    with pytest.raises(ValueError):
        utils.transform_instance_annotations(
            annotation(keypoints=[1, 1, 2] * 3),
            FLIP_AND_DOUBLE,
            (8, 12),
            keypoint_hflip_indices=indices,
        )


@pytest.fixture
def keypoint_dataset():
    name = "contract_keypoints"
    MetadataCatalog.get(name).set(
        keypoint_names=["nose", "left_eye", "right_eye"],
        keypoint_flip_map=[("left_eye", "right_eye")],
    )
    yield name
    MetadataCatalog.remove(name)


def test_keypoint_hflip_indices(keypoint_dataset):
    assert utils.create_keypoint_hflip_indices(keypoint_dataset) == [0, 2, 1]
    assert utils.create_keypoint_hflip_indices([keypoint_dataset] * 2) == [0, 2, 1]


def test_metadata_consistency(keypoint_dataset):
    utils.check_metadata_consistency("keypoint_names", [keypoint_dataset, keypoint_dataset])
    utils.check_metadata_consistency("keypoint_names", [])
    other = MetadataCatalog.get("contract_other").set(keypoint_names=["nose"])
    try:
        with pytest.raises(ValueError, match="keypoint_names"):
            utils.check_metadata_consistency("keypoint_names", [keypoint_dataset, other.name])
    finally:
        MetadataCatalog.remove(other.name)


def to_instances(*segmentations, mask_format):
    annos = [annotation(segmentation=s, bbox_mode=BoxMode.XYXY_ABS) for s in segmentations]
    return utils.annotations_to_instances(annos, (4, 6), mask_format=mask_format)


def test_instances_with_polygons():
    instances = to_instances([POLYGON], [POLYGON, POLYGON], mask_format="polygon")
    assert instances.image_size == (4, 6)
    assert isinstance(instances.gt_boxes, Boxes)
    assert instances.gt_boxes.tensor.tolist() == [[1, 1, 4, 3]] * 2
    assert instances.gt_classes.dtype == torch.int64 and instances.gt_classes.tolist() == [3, 3]
    assert isinstance(instances.gt_masks, PolygonMasks)
    assert [len(polygons) for polygons in instances.gt_masks.polygons] == [1, 2]


def test_instances_with_bitmasks_of_any_origin():
    instances = to_instances([POLYGON], RLE, MASK, mask_format="bitmask")
    assert isinstance(instances.gt_masks, BitMasks)
    masks = instances.gt_masks.tensor
    assert masks.shape == (3, 4, 6) and masks.dtype == torch.bool
    inside = np.zeros((4, 6), bool)
    inside[1:4, 1:5] = True
    assert (masks[0].numpy() == inside).all()
    assert (masks[1].numpy() == MASK).all() and (masks[2].numpy() == MASK).all()


def test_instances_of_no_annotations():
    instances = utils.annotations_to_instances([], (4, 6))
    assert len(instances) == 0
    assert instances.gt_boxes.tensor.shape == (0, 4)
    assert instances.gt_classes.shape == (0,) and instances.gt_classes.dtype == torch.int64
    assert not instances.has("gt_masks")


def test_instances_without_segmentations_have_no_masks():
    one = annotation()
    del one["segmentation"]
    instances = utils.annotations_to_instances([one], (4, 6))
    assert set(instances.get_fields()) == {"gt_boxes", "gt_classes"}
    assert instances.gt_boxes.tensor.tolist() == [[1, 1, 5, 4]]


@pytest.mark.parametrize(
    ("segmentation", "mask_format"),
    [
        (RLE, "polygon"),
        ([[1.0, 2, 3, 4]], "polygon"),
        ("1 2 3", "bitmask"),
        (MASK[None], "bitmask"),
        ([POLYGON], "drawing"),
    ],
)
def test_masks_of_another_format_are_refused(segmentation, mask_format):
    with pytest.raises(REFUSED):
        to_instances(segmentation, mask_format=mask_format)


def test_empty_instances_are_filtered_by_box_and_mask():
    instances = Instances((4, 6))
    instances.gt_boxes = Boxes(torch.tensor([[0.0, 0, 2, 2], [1, 1, 1, 3], [1, 1, 3, 3]]))
    instances.gt_masks = BitMasks(torch.tensor([1, 1, 0])[:, None, None].expand(3, 4, 6) > 0)
    instances.gt_classes = torch.arange(3)

    def kept(**kwargs):
        return utils.filter_empty_instances(instances, **kwargs).gt_classes.tolist()

    assert kept() == [0]
    assert kept(by_mask=False) == [0, 2]
    assert kept(by_box=False) == [0, 1]
    assert kept(by_mask=False, box_threshold=2) == []
    _, keep = utils.filter_empty_instances(instances, return_mask=True)
    assert keep.tolist() == [True, False, False]
    with pytest.raises(REFUSED):
        kept(by_box=False, by_mask=False)


def test_crop_around_an_instance_contains_its_centre():
    instance = {"bbox": [5, 6, 3, 9], "bbox_mode": BoxMode.XYWH_ABS}
    np.random.seed(0)
    first = utils.gen_crop_transform_with_instance((3, 4), (20, 30), instance)
    assert (first.x0, first.y0, first.w, first.h) == (7, 11, 4, 3)
    for _ in range(20):
        crop = utils.gen_crop_transform_with_instance((6, 8), (20, 30), instance)
        assert 0 <= crop.x0 <= 22 and 0 <= crop.y0 <= 14
        assert crop.x0 <= 7 and crop.x0 + 8 >= 6 and crop.y0 <= 11 and crop.y0 + 6 >= 10
    for size, box in (((3, 40), [5, 6, 3, 9]), ((3, 4), [50, 6, 3, 9])):
        with pytest.raises(REFUSED):
            utils.gen_crop_transform_with_instance(size, (20, 30), {**instance, "bbox": box})
