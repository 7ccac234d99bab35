"""detectron2.utils.visualizer draws what it is told to, whichever detectron2 provides it."""

import importlib.util

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.data.catalog import Metadata
from detectron2.structures import BitMasks, Boxes, BoxMode, Instances, PolygonMasks
from detectron2.utils.visualizer import ColorMode, GenericMask, VisImage, Visualizer
from PIL import Image

from mask2former import DETECTRON2_PROVIDER as PROVIDER

GRAY = 100
HEIGHT, WIDTH = 120, 160
STUFF_COLORS = [(128, 64, 128), (70, 130, 180), (0, 255, 0)]
THING_COLORS = [(255, 0, 0), (0, 0, 255)]


@pytest.fixture
def metadata():
    return Metadata().set(
        stuff_classes=["road", "sky", "tree"],
        stuff_colors=STUFF_COLORS,
        thing_classes=["car", "dog"],
        thing_colors=THING_COLORS,
        thing_dataset_id_to_contiguous_id={7: 0, 9: 1},
        label_divisor=1000,
        keypoint_names=["nose", "tail"],
        keypoint_connection_rules=[("nose", "tail", (0, 255, 0))],
    )


def canvas():
    return np.full((HEIGHT, WIDTH, 3), GRAY, dtype=np.uint8)


def square(x0=20, y0=30, x1=80, y1=100):
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def blend(color, alpha, under=GRAY):
    return np.array(color) * alpha + np.array(under) * (1 - alpha)


def assert_color(output, point, color):
    x, y = point
    np.testing.assert_allclose(output.get_image()[y, x], color, atol=3)


def changed(output):
    """Where a picture is no longer gray (H,W)."""
    return (output.get_image() != GRAY).any(axis=2)


# --------------------------------------------------------------------------------- the picture
def test_a_picture_without_drawings_is_the_image():
    image = np.random.default_rng(0).integers(0, 256, (37, 51, 3)).astype(np.uint8)
    np.testing.assert_array_equal(Visualizer(image).get_output().get_image(), image)
    np.testing.assert_array_equal(VisImage(image).get_image(), image)
    assert Visualizer(image.astype(float) + 300).img.max() == 255
    assert Visualizer(torch.from_numpy(image)).img.dtype == np.uint8


@pytest.mark.parametrize(("scale", "shape"), [(2, (74, 102, 3)), (0.5, (18, 25, 3))])
def test_a_picture_is_scaled_and_saved(scale, shape, tmp_path):
    output = VisImage(np.zeros((37, 51, 3), dtype=np.uint8), scale=scale)
    assert (output.width, output.height, output.scale) == (51, 37, scale)
    output.reset_image(np.full((37, 51, 3), 200))
    assert output.get_image().shape == shape and output.get_image().dtype == np.uint8
    assert (output.get_image() == 200).all()
    output.save(str(tmp_path / "picture.png"))
    assert np.asarray(Image.open(tmp_path / "picture.png")).shape[:2] == shape[:2]


def test_color_modes():
    assert [mode.name for mode in ColorMode] == ["IMAGE", "SEGMENTATION", "IMAGE_BW"]
    assert [mode.value for mode in ColorMode] == [0, 1, 2]


# --------------------------------------------------------------------------------------- masks
def test_generic_mask_from_a_bitmap():
    for mask in (square(), square().astype(np.uint8)):
        generic = GenericMask(mask, HEIGHT, WIDTH)
        assert generic.mask.dtype == np.uint8 and generic.area() == mask.sum()
        np.testing.assert_allclose(generic.bbox(), [20, 30, 80, 100], atol=1)
        assert len(generic.polygons) == 1 and not generic.has_holes
        back = generic.polygons_to_mask(generic.polygons)
        assert np.abs(back.astype(int) - mask).sum() <= 60 + 70  # half a pixel at two sides
    holed = square()
    holed[50:60, 40:50] = False
    holed[5:9, 5:9] = True
    generic = GenericMask(holed, HEIGHT, WIDTH)
    assert generic.has_holes and len(generic.polygons) == 3
    polygons, has_holes = generic.mask_to_polygons(square().astype(np.uint8))
    assert len(polygons) == 1 and not has_holes
    assert GenericMask(np.zeros((HEIGHT, WIDTH), np.uint8), HEIGHT, WIDTH).polygons == []


def test_generic_mask_from_polygons_and_rle():
    polygon = [20.0, 30.0, 80.0, 30.0, 80.0, 100.0, 20.0, 100.0]
    generic = GenericMask([polygon], HEIGHT, WIDTH)
    assert generic.polygons[0].tolist() == polygon and not generic.has_holes
    np.testing.assert_array_equal(generic.mask, square())
    compressed = mask_util.encode(np.asfortranarray(square(), dtype=np.uint8))
    np.testing.assert_array_equal(GenericMask(compressed, HEIGHT, WIDTH).mask, square())
    columns = square().T.ravel()
    starts = np.flatnonzero(np.diff(columns)) + 1
    counts = np.diff(np.concatenate([[0], starts, [columns.size]])).tolist()
    plain = {"size": [HEIGHT, WIDTH], "counts": counts}
    np.testing.assert_array_equal(GenericMask(plain, HEIGHT, WIDTH).mask, square())


@pytest.mark.parametrize("mask", [np.zeros((3, 3), dtype=np.uint8), "mask"])
def test_generic_mask_refuses(mask):
    with pytest.raises((AssertionError, ValueError)):
        GenericMask(mask, HEIGHT, WIDTH)


def test_a_binary_mask_is_filled_and_nothing_else_is_touched():
    mask = square()
    mask[50:70, 40:60] = False
    output = Visualizer(canvas()).draw_binary_mask(mask, color=(1.0, 0.0, 0.0), alpha=0.4)
    assert_color(output, (30, 40), blend((255, 0, 0), 0.4))
    assert_color(output, (50, 60), (GRAY,) * 3)
    touched = changed(output)
    assert touched[52:68, 42:58].sum() == 0 and touched[:25].sum() == 0
    assert touched[:, 85:].sum() == 0 and touched[mask][10:].mean() > 0.99


def test_a_binary_mask_is_labelled_unless_it_is_too_small():
    plain, labelled = (
        Visualizer(canvas()).draw_binary_mask(square(), color="r", text=text).get_image()
        for text in (None, "label")
    )
    different = (plain != labelled).any(axis=2)
    assert different.sum() > 50 and not different[:28].any() and not different[102:].any()
    output = Visualizer(canvas()).draw_binary_mask(
        square(), color="r", text="label", area_threshold=10000
    )
    assert not changed(output).any()


def test_small_parts_of_a_binary_mask_are_left_out():
    mask = square()
    mask[5:7, 5:7] = True
    for threshold, is_drawn in ((None, True), (0, True), (10, False)):
        output = Visualizer(canvas()).draw_binary_mask(mask, "r", area_threshold=threshold)
        assert changed(output)[:25].any() == is_drawn
        assert changed(output)[35:95, 25:75].all()


def test_a_soft_mask_covers_by_its_values():
    soft = np.zeros((HEIGHT, WIDTH), dtype=np.float32)
    soft[:, 80:], soft[:, 120:] = 0.5, 1.0
    output = Visualizer(canvas()).draw_soft_mask(soft, color=(0.0, 0.0, 1.0), alpha=0.8)
    assert_color(output, (40, 60), (GRAY,) * 3)
    assert_color(output, (100, 60), blend((0, 0, 255), 0.4))
    assert_color(output, (140, 60), blend((0, 0, 255), 0.8))


# -------------------------------------------------------------------------------------- shapes
def test_shapes_are_where_they_should_be():
    visualizer = Visualizer(canvas())
    assert isinstance(visualizer.draw_box((20, 30, 80, 100), alpha=1, edge_color="b"), VisImage)
    assert_color(visualizer.output, (50, 30), (0, 0, 255))
    assert_color(visualizer.output, (50, 60), (GRAY,) * 3)
    visualizer.draw_line([100, 150], [20, 20], color="r", linewidth=4)
    assert_color(visualizer.output, (125, 20), (255, 0, 0))
    visualizer.draw_circle((120, 60), color="g", radius=6)
    assert_color(visualizer.output, (122, 62), (0, 128, 0))
    corners = np.array([[100, 80], [150, 80], [150, 110], [100, 110]])
    visualizer.draw_polygon(corners, color="r", alpha=0.5)
    assert_color(visualizer.output, (125, 95), blend((255, 0, 0), 0.5))
    assert visualizer.get_output() is visualizer.output


def test_rotated_boxes_are_turned_counter_clockwise():
    output = Visualizer(canvas()).draw_rotated_box_with_label((80, 60, 80, 20, 90), edge_color="r")
    ys, xs = np.nonzero(changed(output))
    assert abs(xs.min() - 70) <= 2 and abs(xs.max() - 90) <= 2
    assert abs(ys.min() - 20) <= 2 and abs(ys.max() - 100) <= 2
    output = Visualizer(canvas()).draw_rotated_box_with_label((80, 60, 80, 4, 45), edge_color="r")
    touched = changed(output)
    assert touched[35, 100:108].any() and not touched[35, 50:70].any()  # up at the right


@pytest.mark.parametrize("rotation", [0, 30])
def test_text_is_written_at_its_position(rotation):
    output = Visualizer(canvas()).draw_text("text", (80, 50), color="r", rotation=rotation)
    ys, xs = np.nonzero(changed(output))
    assert len(xs) > 100 and 40 < xs.min() < 80 < xs.max() < 120 and 40 < ys.min() < 60
    larger = Visualizer(canvas()).draw_text("text", (80, 50), font_size=20)
    assert changed(larger).sum() > 2 * len(xs)


# ----------------------------------------------------------------------- semantic and panoptic
def labels():
    sem_seg = np.full((HEIGHT, WIDTH), 255)
    sem_seg[:60], sem_seg[60:, :80] = 1, 0
    return sem_seg


def test_semantic_labels_get_their_colors(metadata):
    for given in (labels(), torch.from_numpy(labels())):
        output = Visualizer(canvas(), metadata).draw_sem_seg(given, alpha=0.6, draw_text=False)
        assert_color(output, (80, 30), blend(STUFF_COLORS[1], 0.6))
        assert_color(output, (40, 90), blend(STUFF_COLORS[0], 0.6))
        assert not changed(output)[65:, 85:].any()  # 255 is no class
    named = Visualizer(canvas(), metadata).draw_sem_seg(labels(), alpha=0.6)
    assert (named.get_image() != output.get_image()).any()
    output = Visualizer(canvas(), metadata).draw_sem_seg(labels(), area_threshold=5000)
    assert changed(output)[:55].all() and not changed(output)[65:].any()


@pytest.mark.parametrize("mode", list(ColorMode))
def test_panoptic_segments(metadata, mode):
    panoptic = torch.zeros(HEIGHT, WIDTH, dtype=torch.int64)
    panoptic[:60], panoptic[60:, :80], panoptic[80:, 100:] = 1, 2, 3
    info = [
        {"id": 1, "category_id": 1, "isthing": False},
        {"id": 2, "category_id": 0, "isthing": True, "score": 0.9},
        {"id": 3, "category_id": 1, "isthing": True, "score": 0.8},
    ]
    visualizer = Visualizer(canvas(), metadata, instance_mode=mode)
    output = visualizer.draw_panoptic_seg(panoptic, info, alpha=0.5)
    assert_color(output, (20, 20), blend(STUFF_COLORS[1], 0.5))
    touched = changed(output)
    assert touched[105:115, 5:75].all() and touched[105:115, 105:155].all()
    assert not touched[65:75, 100:].any()
    again = Visualizer(canvas(), metadata).draw_panoptic_seg_predictions(panoptic, info[:1])
    assert changed(again)[:55].all() and not changed(again)[65:].any()


def test_panoptic_ids_can_speak_for_themselves(metadata):
    metadata.thing_dataset_id_to_contiguous_id.pop(7)  # class 0 is stuff now
    panoptic = torch.full((HEIGHT, WIDTH), -1)
    panoptic[:60], panoptic[90:, :80] = 2, 1001
    output = Visualizer(canvas(), metadata).draw_panoptic_seg(panoptic, None, alpha=0.5)
    assert_color(output, (20, 20), blend(STUFF_COLORS[0], 0.5))
    assert changed(output)[110:, 5:75].all() and not changed(output)[65:85].any()


# ----------------------------------------------------------------------------------- instances
def predictions():
    masks = torch.from_numpy(np.stack([square(), square(100, 10, 150, 110)]))
    return Instances(
        (HEIGHT, WIDTH),
        pred_masks=masks,
        pred_boxes=BitMasks(masks).get_bounding_boxes(),
        pred_classes=torch.tensor([0, 1]),
        scores=torch.tensor([0.9, 0.4]),
    )


def test_instances_in_the_colors_of_their_classes(metadata):
    visualizer = Visualizer(canvas(), metadata, instance_mode=ColorMode.SEGMENTATION)
    output = visualizer.draw_instance_predictions(predictions(), jittering=False)
    assert_color(output, (50, 85), blend(THING_COLORS[0], 0.8))
    assert_color(output, (125, 90), blend(THING_COLORS[1], 0.8))


def test_instances_on_an_image_without_colors(metadata):
    image = canvas()
    image[..., 0] = 200
    visualizer = Visualizer(image, metadata, instance_mode=ColorMode.IMAGE_BW)
    picture = visualizer.draw_instance_predictions(predictions()).get_image()
    outside = picture[112:, :15]
    assert (outside.max(axis=-1) == outside.min(axis=-1)).all()
    inside = picture[75:95, 30:70].astype(int)
    assert (inside.max(axis=-1) != inside.min(axis=-1)).any()


@pytest.mark.parametrize("fields", [["pred_masks"], ["pred_boxes"], ["pred_classes", "pred_boxes"]])
def test_instances_with_some_of_the_fields(metadata, fields):
    one = predictions()
    for name in list(one.get_fields()):
        if name not in fields:
            one.remove(name)
    output = Visualizer(canvas(), metadata).draw_instance_predictions(one)
    touched = changed(output)
    assert touched[60, 20] or touched[60, 19] or touched[60, 21]  # left side of the first one
    assert not touched[112:, :90].any()


def test_no_instances_change_nothing(metadata):
    none = predictions()[:0]
    assert not changed(Visualizer(canvas(), metadata).draw_instance_predictions(none)).any()


@pytest.mark.parametrize("kind", ["polygons", "bitmasks", "array", "rle", "generic"])
def test_masks_of_all_kinds_are_drawn(kind):
    polygon = np.array([20.0, 30, 80, 30, 80, 100, 20, 100])
    masks = {
        "polygons": PolygonMasks([[polygon]]),
        "bitmasks": BitMasks(torch.from_numpy(square())[None]),
        "array": square()[None],
        "rle": [mask_util.encode(np.asfortranarray(square(), dtype=np.uint8))],
        "generic": [GenericMask(square(), HEIGHT, WIDTH)],
    }[kind]
    colors = [(1.0, 0.0, 0.0)]
    output = Visualizer(canvas()).overlay_instances(masks=masks, assigned_colors=colors, alpha=0.5)
    assert_color(output, (50, 60), blend((255, 0, 0), 0.5))
    assert not changed(output)[:, 85:].any()


def test_boxes_labels_and_keypoints_are_drawn(metadata):
    boxes = Boxes(torch.tensor([[20.0, 30, 80, 100]]))
    keypoints = np.array([[[110.0, 40, 1.0], [150.0, 40, 1.0]]])
    plain = Visualizer(canvas(), metadata).overlay_instances(boxes=boxes, assigned_colors=["r"])
    assert changed(plain)[65, 19:22].any() and not changed(plain)[40:90, 25:75].any()
    output = Visualizer(canvas(), metadata).overlay_instances(
        boxes=boxes, labels=["car"], keypoints=keypoints, assigned_colors=["r"]
    )
    assert changed(output)[:, :100].sum() > changed(plain).sum() + 50  # the label
    assert_color(output, (130, 40), (0, 255, 0))  # the connection
    keypoints[0, 1, 2] = 0.0  # not visible
    output = Visualizer(canvas(), metadata).draw_and_connect_keypoints(keypoints[0])
    assert changed(output)[38:42, 108:112].all() and not changed(output)[:, 120:].any()


def test_rotated_boxes_among_instances():
    boxes = np.array([[50.0, 60, 40, 20, 0], [120, 60, 40, 20, 90]])
    for method in ("overlay_instances", "overlay_rotated_instances"):
        draw = getattr(Visualizer(canvas()), method)
        touched = changed(draw(boxes=boxes, labels=["a", "b"], assigned_colors=["r", "b"]))
        assert touched[48:53, 40:60].any() and touched[38:43, 115:125].any()
        assert not touched[:35, :90].any()


# ------------------------------------------------------------------------------- dataset dicts
def annotation(kind):
    segmentation = {
        "polygon": [[20.0, 30, 80, 30, 80, 100, 20, 100]],
        "rle": mask_util.encode(np.asfortranarray(square(), dtype=np.uint8)),
        "bitmask": square(),
    }[kind]
    return {
        "segmentation": segmentation,
        "bbox": [20, 30, 60, 70],
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": 1,
        "iscrowd": 0,
    }


@pytest.mark.parametrize("kind", ["polygon", "rle", "bitmask"])
def test_annotations_are_drawn(metadata, kind):
    visualizer = Visualizer(canvas(), metadata, instance_mode=ColorMode.SEGMENTATION)
    touched = changed(visualizer.draw_dataset_dict({"annotations": [annotation(kind)]}))
    assert touched[85:95, 30:70].all() and not touched[105:].any()


def test_annotations_without_masks_and_empty_ones(metadata):
    one = annotation("polygon")
    del one["segmentation"]
    one["keypoints"] = [110.0, 40, 2, 150.0, 40, 2]
    touched = changed(Visualizer(canvas(), metadata).draw_dataset_dict({"annotations": [one]}))
    assert not touched[60:95, 25:75].any() and touched[65, 18:23].any()
    assert touched[38:42, 148:152].all()
    empty = Visualizer(canvas(), metadata).draw_dataset_dict({"annotations": []})
    assert not changed(empty).any()


def test_semantic_files_are_drawn(metadata, tmp_path):
    path = str(tmp_path / "labels.png")
    Image.fromarray(labels().astype(np.uint8)).save(path)
    for dic in ({"sem_seg_file_name": path}, {"sem_seg": torch.from_numpy(labels())}):
        output = Visualizer(canvas(), metadata).draw_dataset_dict(dic)
        assert_color(output, (20, 20), blend(STUFF_COLORS[1], 0.5))
        assert not changed(output)[65:, 85:].any()


def test_panoptic_files_are_drawn(metadata, tmp_path):
    ids = np.where(labels() == 1, 70000, 0)
    path = str(tmp_path / "panoptic.png")
    rgb = np.stack([ids % 256, ids // 256 % 256, ids // 256**2], axis=2)
    Image.fromarray(rgb.astype(np.uint8)).save(path)
    info = [{"id": 70000, "category_id": 1, "isthing": False}]
    given = [{"pan_seg": torch.from_numpy(ids)}]
    if PROVIDER == "embedded" or importlib.util.find_spec("panopticapi"):
        given.append({"pan_seg_file_name": path})  # for which the real one needs panopticapi
    for dic in given:
        output = Visualizer(canvas(), metadata).draw_dataset_dict(dic | {"segments_info": info})
        assert_color(output, (20, 20), blend(STUFF_COLORS[1], 0.5))
        assert not changed(output)[65:].any()
