"""Deterministic transforms and their inverses, on either provider of detectron2."""

import numpy as np
import pytest
from d2_inputs import REFUSED, image_and_sem_seg
from detectron2.data import transforms as T
from PIL import Image


# ------------------------------------------------------------------------------------------ resize
def test_resize_of_uint8_smooths_and_keeps_labels_whole():
    image = np.zeros((4, 6), np.uint8)
    image[:, ::2] = 200
    transform = T.ResizeTransform(4, 6, 2, 3)
    # Pillow's triangle filter over four columns: weights 1/8, 3/8, 3/8, 1/8, cut at the border
    assert transform.apply_image(image)[0].tolist() == [114, 100, 86]
    assert set(np.unique(transform.apply_segmentation(image))) <= {0, 200}
    assert transform.apply_segmentation(image).shape == (2, 3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_resize_of_floats_is_bilinear_without_smoothing(dtype):
    image = np.array([[0.0, 1.0, 4.0, 9.0]], dtype)
    resized = T.ResizeTransform(1, 4, 1, 8).apply_image(image)
    assert resized.dtype == dtype
    assert resized[0].tolist() == pytest.approx([0, 0.25, 0.75, 1.75, 3.25, 5.25, 7.75, 9])
    halved = T.ResizeTransform(1, 4, 1, 2).apply_image(image)
    assert halved[0].tolist() == pytest.approx([0.5, 6.5])


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 1), (4, 6, 3), (4, 6, 2, 3)])
@pytest.mark.parametrize("interp", [Image.NEAREST, Image.BILINEAR, Image.BICUBIC, None])
def test_resize_keeps_the_channels(shape, interp):
    for dtype in (np.float32,) if len(shape) == 4 else (np.uint8, np.float32):
        image = np.full(shape, 3, dtype)
        resized = T.ResizeTransform(4, 6, 8, 9, interp).apply_image(image)
        assert resized.shape == (8, 9, *shape[2:]) and resized.dtype == dtype
        assert np.allclose(resized, 3)


def test_resize_takes_flipped_views():
    image = np.arange(24, dtype=np.float32).reshape(4, 6)
    resized = T.ResizeTransform(4, 6, 4, 6).apply_image(image[:, ::-1])
    assert np.allclose(resized, image[:, ::-1])


def test_resize_refuses_an_image_of_another_size():
    with pytest.raises(REFUSED):
        T.ResizeTransform(4, 6, 8, 9).apply_image(np.zeros((6, 4), np.uint8))


def test_resize_of_coordinates_boxes_and_polygons():
    transform = T.ResizeTransform(10, 20, 30, 10)
    assert transform.apply_coords(np.array([[4.0, 2.0]])).tolist() == [[2.0, 6.0]]
    assert transform.apply_box(np.array([[4.0, 2, 8, 5]])).tolist() == [[2, 6, 4, 15]]
    (polygon,) = transform.apply_polygons([np.array([[4.0, 2], [8, 2], [8, 5]])])
    assert polygon.tolist() == [[2, 6], [4, 6], [4, 15]]


@pytest.mark.parametrize("dtype", [np.int64, bool])
def test_other_types_can_be_flipped_but_not_resized(dtype):
    image = np.eye(4, 6).astype(dtype)
    picture = T.AugInput(image)
    picture.transform(T.HFlipTransform(6))
    assert (picture.image == image[:, ::-1]).all()
    with pytest.raises((*REFUSED, RuntimeError)):
        picture.transform(T.ResizeTransform(4, 6, 2, 3))


# ----------------------------------------------------------------------------------------- inverse
@pytest.mark.parametrize(
    "transform",
    [
        T.ResizeTransform(20, 30, 33, 47),
        T.HFlipTransform(30),
        T.VFlipTransform(20),
        T.NoOpTransform(),
        T.CropTransform(3, 4, 11, 9, 30, 20),
        T.PadTransform(3, 4, 5, 6, 30, 20),
        T.TransformList(
            [
                T.ResizeTransform(20, 30, 40, 60),
                T.HFlipTransform(60),
                T.CropTransform(3, 4, 50, 30, 60, 40),
                T.PadTransform(0, 0, 4, 10, 50, 30),
            ]
        ),
    ],
    ids=lambda t: type(t).__name__,
)
def test_inverse_brings_coordinates_back(transform):
    coords = np.random.RandomState(0).uniform(5, 12, (10, 2))
    there = transform.apply_coords(coords.copy())
    assert np.allclose(transform.inverse().apply_coords(there), coords)
    again = transform.inverse().inverse()
    assert np.allclose(again.apply_coords(coords.copy()), transform.apply_coords(coords.copy()))


def test_inverse_brings_pixels_back():
    image, sem_seg = image_and_sem_seg()
    flips = T.TransformList([T.HFlipTransform(60), T.VFlipTransform(40)])
    assert (flips.inverse().apply_image(flips.apply_image(image)) == image).all()
    crop = T.CropTransform(5, 6, 20, 10, 60, 40)
    back = crop.inverse().apply_segmentation(crop.apply_segmentation(sem_seg))
    assert back.shape == sem_seg.shape
    assert (back[6:16, 5:25] == sem_seg[6:16, 5:25]).all()
    assert not back[:6].any() and not back[:, 25:].any()
    grow = T.ResizeTransform(40, 60, 80, 120)
    assert (grow.inverse().apply_segmentation(grow.apply_segmentation(sem_seg)) == sem_seg).all()


# ----------------------------------------------------------------------------------- other types
def test_rotated_boxes():
    boxes = np.array([[3.0, 4, 10, 5, 30], [7, 8, 2, 9, -120]])
    flipped = T.HFlipTransform(30).apply_rotated_box(boxes.copy())
    assert flipped.tolist() == [[27, 4, 10, 5, -30], [23, 8, 2, 9, 120]]
    assert (T.NoOpTransform().apply_rotated_box(boxes.copy()) == boxes).all()
    upright = T.ResizeTransform(10, 10, 20, 40).apply_rotated_box(np.array([[3.0, 4, 10, 5, 90]]))
    assert np.allclose(upright, [[12, 8, 20, 20, 90]])
    scaled = T.ResizeTransform(10, 10, 20, 20).apply_rotated_box(boxes.copy())
    assert np.allclose(scaled[:, :4], boxes[:, :4] * 2) and np.allclose(scaled[:, 4], boxes[:, 4])


def test_new_data_types_can_be_registered():
    class Mirror(T.Transform):
        def apply_image(self, img):
            return img

        def apply_coords(self, coords):
            return coords

    Mirror.register_type("depth", lambda transform, depth: -depth)
    assert Mirror().apply_depth(3) == -3
    assert T.TransformList([Mirror(), Mirror()]).apply_depth(3) == 3


def test_blend_rounds_and_clips_uint8_and_leaves_labels():
    image = np.full((2, 2, 3), 200, np.uint8)
    blend = T.BlendTransform(0, src_weight=-0.5, dst_weight=1.5)
    assert (blend.apply_image(image) == 255).all()
    assert blend.apply_segmentation(image[:, :, 0]).tolist() == [[200, 200], [200, 200]]
