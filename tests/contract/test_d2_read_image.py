"""Reading images as arrays, on either provider of detectron2."""

import io

import numpy as np
import pytest
import torch
from detectron2.data import detection_utils as utils
from PIL import Image

import mask2former

RGB = np.random.RandomState(0).randint(0, 256, (4, 6, 3)).astype(np.uint8)
MASK = (RGB[:, :, 0] > 100).astype(np.uint8)


@pytest.fixture
def rgb_file(tmp_path):
    path = tmp_path / "rgb.png"
    Image.fromarray(RGB).save(path)
    return str(path)


def test_colour_formats(rgb_file):
    assert (utils.read_image(rgb_file) == RGB).all()
    assert (utils.read_image(rgb_file, "RGB") == RGB).all()
    assert (utils.read_image(rgb_file, "BGR") == RGB[:, :, ::-1]).all()
    grey = utils.read_image(rgb_file, "L")
    assert grey.shape == (4, 6, 1) and grey.dtype == np.uint8
    assert np.abs(grey[:, :, 0] - RGB @ [0.299, 0.587, 0.114]).max() < 1
    assert utils.read_image(rgb_file, "F").dtype == np.float32


def test_yuv_and_back(rgb_file):
    yuv = utils.read_image(rgb_file, "YUV-BT.601")
    assert np.issubdtype(yuv.dtype, np.floating) and yuv.shape == (4, 6, 3)
    r, g, b = np.moveaxis(RGB / 255.0, 2, 0)
    y = 0.299 * r + 0.587 * g + 0.114 * b
    # BT.601: U and V are the scaled differences of blue and red to luma
    expected = np.stack([y, 0.492 * (b - y), 0.877 * (r - y)], axis=2)
    assert np.abs(yuv - expected).max() < 1e-3
    assert np.abs(utils.convert_image_to_rgb(yuv, "YUV-BT.601") - RGB).max() < 0.01


@pytest.mark.parametrize("format", ["RGB", "BGR"])
@pytest.mark.parametrize("wrap", [np.asarray, torch.from_numpy])
def test_every_format_can_be_shown(rgb_file, format, wrap):
    image = utils.read_image(rgb_file, format)
    assert (utils.convert_image_to_rgb(wrap(image.copy()), format) == RGB).all()


def test_grey_becomes_three_channels(rgb_file):
    grey = utils.read_image(rgb_file, "L")
    shown = utils.convert_image_to_rgb(grey, "L")
    assert shown.shape == (4, 6, 3) and (shown == grey).all()


@pytest.mark.parametrize(
    ("array", "mode"),
    [(MASK * 30, "L"), (RGB[:, :, 0].astype(np.uint16) * 200, "I;16"), (MASK.astype(bool), "1")],
)
def test_without_a_format_the_file_decides(tmp_path, array, mode):
    path = str(tmp_path / "any.png")
    picture = Image.fromarray(array)
    assert picture.mode == mode
    picture.save(path)
    found = utils.read_image(path)
    assert found.dtype == array.dtype and (found == array).all()


def test_palette_images_give_indices_or_colours(tmp_path):
    path = str(tmp_path / "palette.png")
    picture = Image.fromarray(MASK).convert("P")
    picture.putpalette([9, 8, 7, 200, 100, 50])
    picture.save(path)
    assert (utils.read_image(path) == MASK).all()
    assert (utils.read_image(path, "RGB") == np.array([[9, 8, 7], [200, 100, 50]])[MASK]).all()


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, RGB),
        (2, RGB[:, ::-1]),
        (3, RGB[::-1, ::-1]),
        (4, RGB[::-1]),
        (5, RGB.transpose(1, 0, 2)),
        (6, RGB[::-1].transpose(1, 0, 2)),
        (7, RGB[::-1, ::-1].transpose(1, 0, 2)),
        (8, RGB[:, ::-1].transpose(1, 0, 2)),
    ],
)
def test_exif_orientation_is_applied(tmp_path, orientation, upright):
    path = str(tmp_path / "turned.png")
    picture = Image.fromarray(RGB)
    exif = picture.getexif()
    exif[0x0112] = orientation
    picture.save(path, exif=exif)
    found = utils.read_image(path, "RGB")
    assert found.shape == upright.shape and (found == upright).all()


def image_bytes(kind):
    noise = np.random.RandomState(0).randint(0, 256, (60, 60, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"this is no image",
        image_bytes("JPEG")[:1500],
        image_bytes("PNG")[:1500],
        image_bytes("PNG")[:20],
    ],
    ids=["empty", "text", "truncated JPEG", "truncated PNG", "header of a PNG"],
)
def test_broken_files_are_os_errors(tmp_path, content):
    path = tmp_path / "broken.img"
    path.write_bytes(content)
    with pytest.raises(OSError) as raised:
        utils.read_image(str(path), "RGB")
    if mask2former.DETECTRON2_PROVIDER == "embedded":  # detectron2 does not say which file
        assert str(path) in str(raised.value) and "\n" not in str(raised.value)


def test_missing_file_and_unknown_format(tmp_path, rgb_file):
    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        utils.read_image(str(tmp_path / "none.png"))
    with pytest.raises(ValueError):
        utils.read_image(rgb_file, "sepia")


def test_image_size_is_checked_or_filled_in():
    utils.check_image_size({"width": 6, "height": 4}, RGB)
    sample = {}
    utils.check_image_size(sample, RGB)
    assert sample == {"width": 6, "height": 4}
    with pytest.raises(utils.SizeMismatchError, match=r"street\.png"):
        utils.check_image_size({"width": 5, "height": 4, "file_name": "street.png"}, RGB)
    assert issubclass(utils.SizeMismatchError, ValueError)
