"""Pictures of which only the rows that are needed are decoded."""

import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import transforms as T
from mapper_inputs import save
from PIL import Image

from mask2former.data import build_mapper
from mask2former.data.errors import SampleError
from mask2former.data.geometry import draw
from mask2former.data.sample_files import PictureFile, read_picture

HEIGHT, WIDTH = 60, 50
END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
# Of each pass of an interlaced PNG: first row and column, and the steps (PNG, Adam7).
PASSES = [
    *((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4)),
    *((2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)),
]


def _noise(*shape: int) -> np.ndarray:
    return np.random.RandomState(0).randint(0, 256, shape).astype(np.uint8)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _interlaced(image: np.ndarray) -> bytes:
    rows = []
    for top, left, down, right in PASSES:
        rows += [b"\x00" + row.tobytes() for row in image[top::down, left::right]]
    return _png(image.shape, rows, interlace=1)


def _png(shape: tuple[int, int, int], rows: list[bytes], interlace: int = 0) -> bytes:
    """All rows in one chunk, other than Pillow writes them."""
    header = struct.pack(">IIBBBBB", shape[1], shape[0], 8, 2, 0, 0, interlace)
    parts = _chunk(b"IHDR", header), _chunk(b"IDAT", zlib.compress(b"".join(rows)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + END


@pytest.mark.parametrize("image_format", ["RGB", "BGR", "L", "YUV-BT.601"])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "1"])
def test_the_rows_that_are_asked_for_are_whole(tmp_path, mode, image_format):
    path = str(tmp_path / "image.png")
    Image.fromarray(_noise(HEIGHT, WIDTH, 3)).convert(mode).save(path)
    whole = read_picture(path, image_format)
    for num_rows in (1, 17, HEIGHT):
        file = PictureFile(path, image_format)
        assert file.size == (HEIGHT, WIDTH)
        part = np.asarray(file.read(num_rows)).reshape(whole.shape)
        np.testing.assert_array_equal(part[:num_rows], whole[:num_rows])
        if mode == "RGB" and image_format == "RGB":
            assert not part[num_rows:].any()  # these took no work


@pytest.mark.parametrize("suffix", [".jpg", ".bmp", ".tif", ".webp"])
def test_other_formats_are_decoded_whole(tmp_path, suffix):
    path = str(tmp_path / f"image{suffix}")
    Image.fromarray(_noise(HEIGHT, WIDTH, 3)).save(path)
    part = np.asarray(PictureFile(path, "RGB").read(10))
    np.testing.assert_array_equal(part, np.asarray(Image.open(path).convert("RGB")))


def test_interlaced_pictures_are_decoded_whole(tmp_path):
    image, path = _noise(HEIGHT, WIDTH, 3), tmp_path / "interlaced.png"
    path.write_bytes(_interlaced(image))
    np.testing.assert_array_equal(np.asarray(PictureFile(str(path), "RGB").read(10)), image)


@pytest.mark.parametrize("place", ["before", "behind"])
def test_an_orientation_anywhere_in_the_file(tmp_path, place):
    """Which turns the picture, so that its first rows are others."""
    image, path = _noise(HEIGHT, WIDTH, 3), tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    if place == "before":
        Image.fromarray(image).save(path, exif=exif)
    else:
        Image.fromarray(image).save(path)
        content = path.read_bytes()
        assert content.endswith(END)
        chunk = _chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\x00\x00"))
        path.write_bytes(content.removesuffix(END) + chunk + END)
    file = PictureFile(str(path), "RGB")
    assert file.size == (WIDTH, HEIGHT)
    np.testing.assert_array_equal(np.asarray(file.read(10)), np.rot90(image, -1))


@pytest.mark.parametrize("num_rows", [15, 50, None])
def test_a_file_that_breaks_off_is_named_wherever_anybody_looks(tmp_path, num_rows):
    image, path = _noise(HEIGHT, WIDTH, 3), tmp_path / "broken.png"
    content = _png(image.shape, [b"\x00" + row.tobytes() for row in image])
    path.write_bytes(content)
    np.testing.assert_array_equal(np.asarray(PictureFile(str(path), "RGB").read()), image)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(SampleError, match=r"broken\.png: not a whole picture"):
        PictureFile(str(path), "RGB").read(num_rows)


FLIP_H, FLIP_V = T.HFlipTransform(WIDTH), T.VFlipTransform(HEIGHT)
RESIZE = T.ResizeTransform(HEIGHT, WIDTH, 97, 83)
CROP = T.CropTransform(5, 11, 30, 20)


@pytest.mark.parametrize(
    "transforms, is_part",
    [
        ([RESIZE, CROP], True),
        ([FLIP_H, RESIZE, CROP, T.VFlipTransform(20)], True),
        ([CROP, T.ResizeTransform(20, 30, 50, 90)], True),
        ([FLIP_V, RESIZE, CROP], False),
        ([RESIZE], False),
        ([T.ResizeTransform(HEIGHT, WIDTH, 97, 83, Image.Resampling.BICUBIC), CROP], False),
        ([T.ResizeTransform(HEIGHT, WIDTH, 20, 83), T.CropTransform(5, 3, 30, 10)], False),
        ([], False),
    ],
)
def test_a_geometry_asks_for_what_it_sees(tmp_path, transforms, is_part):
    image, path = _noise(HEIGHT, WIDTH, 3), str(tmp_path / "image.png")
    Image.fromarray(image).save(path)
    geometry = draw(transforms, PictureFile(path, "RGB"))
    expected = T.TransformList(transforms).apply_image(image)
    asked = []

    class Asked(PictureFile):
        def read(self, num_rows: int | None = None) -> Image.Image | np.ndarray:
            asked.append(num_rows)
            return super().read(num_rows)

    np.testing.assert_array_equal(geometry.image(Asked(path, "RGB")), expected)
    assert (asked[0] < HEIGHT) == is_part


def test_crops_of_a_png_are_those_of_the_whole_picture(cfg, tmp_path):
    """For a JPEG with the same pixels, which is decoded whole."""
    cfg.INPUT.MIN_SIZE_TRAIN = (70, 97, 150)
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.TYPE = True, "absolute"
    cfg.INPUT.CROP.SIZE = (32, 40)
    cfg.INPUT.COLOR_AUG_SSD = True
    label = _noise(HEIGHT, WIDTH) % 19
    Image.fromarray(_noise(HEIGHT, WIDTH, 3)).save(tmp_path / "image.jpg")
    pixels = np.asarray(Image.open(tmp_path / "image.jpg"))
    as_png = save(tmp_path, pixels, label)
    as_jpeg = {**as_png, "file_name": str(Path(tmp_path, "image.jpg"))}
    mapper = build_mapper(cfg, True)
    for seed in range(20):
        images = []
        for sample in (as_png, as_jpeg):
            np.random.seed(seed)
            random.seed(seed)
            images.append(mapper(sample)["image"])
        assert images[0].equal(images[1])
