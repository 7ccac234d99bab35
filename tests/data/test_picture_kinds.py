"""Kinds of picture and label files, each made here, and the sentence for those of no use."""

import struct
import zlib

import numpy as np
import pytest
from mapper_inputs import refuses, save
from PIL import Image, ImageOps

from mask2former.data import build_mapper

SIZE = HEIGHT, WIDTH = 24, 40
ORIENTATION = 0x0112  # the EXIF tag


@pytest.fixture
def cfg(cfg):
    cfg.INPUT.MIN_SIZE_TRAIN = (HEIGHT,)
    cfg.INPUT.MIN_SIZE_TEST = 0
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 5
    return cfg


@pytest.fixture
def label():
    return np.random.RandomState(1).randint(0, 5, SIZE).astype(np.uint8)


def _picture(seed: int = 0) -> np.ndarray:
    coarse = np.random.RandomState(seed).randint(0, 256, (6, 10, 3)).astype(np.uint8)
    return coarse.repeat(4, 0).repeat(4, 1)


@pytest.mark.parametrize(
    "mode, suffix",
    [
        *[(mode, ".png") for mode in ("1", "L", "LA", "P", "RGB", "RGBA")],
        *[(mode, ".jpg") for mode in ("L", "RGB", "CMYK", "YCbCr")],
        *[(mode, ".tif") for mode in ("CMYK", "LAB")],
        ("P", ".gif"),
        ("RGB", ".bmp"),
        ("RGB", ".webp"),
    ],
)
def test_pictures_become_rgb(cfg, tmp_path, label, mode, suffix):
    picture = Image.fromarray(_picture())
    picture = ImageOps.grayscale(picture).convert(mode) if mode == "LA" else picture
    if mode == "LAB":
        picture = Image.merge("LAB", picture.split())
    elif mode == "RGBA":
        picture.putalpha(7)
    else:
        picture = picture.convert(mode)
    path = str(tmp_path / f"picture{suffix}")
    picture.save(path)
    sample = {**save(tmp_path, _picture(), label), "file_name": path}
    expected = np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1)
    for is_train in (True, False):
        mapped = build_mapper(cfg, is_train)(sample)
        assert mapped["image"].shape == (3, *SIZE)
        assert (mapped["image"].numpy() == expected).all()
    cfg.INPUT.FORMAT = "BGR"
    assert (build_mapper(cfg, True)(sample)["image"].numpy() == expected[::-1]).all()


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
@pytest.mark.parametrize("is_train", [True, False])
def test_deep_grey_pictures(cfg, tmp_path, label, dtype, is_train):
    path = str(tmp_path / "deep.tif")
    Image.fromarray(_picture()[..., 0].astype(dtype) * 200).save(path)
    sample = {**save(tmp_path, _picture(), label), "file_name": path}
    if is_train:
        refuses(cfg, sample, "deep.tif", "more than 8 bits", "8 bits")
    else:
        with pytest.raises(ValueError, match="more than 8 bits"):
            build_mapper(cfg, False)(sample)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(cfg, tmp_path, orientation):
    """By their EXIF orientation; labels and sizes are those of the picture that viewers show."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = str(tmp_path / "turned.png")
    Image.fromarray(_picture()).save(path, exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    label = np.random.RandomState(1).randint(0, 5, upright.shape[:2]).astype(np.uint8)
    cfg.INPUT.MIN_SIZE_TRAIN = (HEIGHT,)
    sample = {**save(tmp_path, upright, label), "file_name": path}
    mapped = build_mapper(cfg, True)(sample)
    assert (mapped["image"].numpy() == upright.transpose(2, 0, 1)).all()
    assert (mapped["sem_seg"].numpy() == label).all()
    if orientation < 5:
        assert upright.shape[:2] == SIZE
        return
    assert upright.shape[:2] == SIZE[::-1]
    as_stored = {**sample, "height": HEIGHT, "width": WIDTH}
    refuses(cfg, as_stored, "turned.png", "40x24", "24x40", "EXIF orientation")
    stored = str(tmp_path / "label_as_stored.png")
    Image.fromarray(label.T.copy()).save(stored)
    refuses(cfg, {**sample, "sem_seg_file_name": stored}, "turned.png", "EXIF orientation")


def test_a_size_that_differs(cfg, tmp_path, label):
    sample = save(tmp_path, _picture(), label)
    message = refuses(cfg, {**sample, "width": 41}, "image.png", "24x40", "24x41", "another file")
    assert "EXIF" not in message
    unknown = {key: value for key, value in sample.items() if key not in ("height", "width")}
    mapped = build_mapper(cfg, True)(unknown)
    assert (mapped["height"], mapped["width"]) == SIZE


@pytest.mark.parametrize("ignore, num_classes", [(65535, 847), (255, 150), (65, 65)])
def test_labels_of_16_bits(cfg, tmp_path, ignore, num_classes):
    """ADE20K's 847 classes need them; 65 of Mapillary Vistas' 66 classes are learned."""
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = num_classes
    cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE = ignore
    cfg.INPUT.SIZE_DIVISIBILITY = 32
    label = np.random.RandomState(0).randint(0, num_classes, SIZE).astype(np.uint16)
    label[:5] = ignore
    sample = save(tmp_path, _picture(), label)
    assert Image.open(sample["sem_seg_file_name"]).mode.startswith("I")
    mapped = build_mapper(cfg, True)(sample)
    assert (mapped["sem_seg"][:24, :40].numpy() == label).all()
    assert (mapped["sem_seg"][24:] == ignore).all() and (mapped["sem_seg"][:, 40:] == ignore).all()
    classes = sorted(set(label.ravel().tolist()) - {ignore})
    assert mapped["instances"].gt_classes.tolist() == classes
    label[7, 7] = num_classes + 1
    refuses(
        cfg, save(tmp_path, _picture(), label), f"[{num_classes + 1}]", f"ignore value {ignore}"
    )


def test_labels_with_a_palette_or_one_bit(cfg, tmp_path, label):
    sample = save(tmp_path, _picture(), label)
    file = Image.fromarray(label)
    file.putpalette([200, 10, 10, 9, 9, 200, 0, 255, 0, 1, 2, 3, 250, 250, 250])
    file.save(sample["sem_seg_file_name"])
    assert Image.open(sample["sem_seg_file_name"]).mode == "P"
    assert (build_mapper(cfg, True)(sample)["sem_seg"].numpy() == label).all()
    Image.fromarray(label > 2).save(sample["sem_seg_file_name"])
    assert Image.open(sample["sem_seg_file_name"]).mode == "1"
    mapped = build_mapper(cfg, True)(sample)
    assert (mapped["sem_seg"].numpy() == (label > 2)).all()
    assert mapped["instances"].gt_classes.tolist() == [0, 1]


@pytest.mark.parametrize("mode, shape", [("RGB", "(24, 40, 3)"), ("LA", "(24, 40, 2)")])
def test_labels_that_are_colours(cfg, tmp_path, label, mode, shape):
    sample = save(tmp_path, _picture(), label)
    Image.fromarray(label).convert(mode).save(sample["sem_seg_file_name"])
    refuses(cfg, sample, "label.png", "one channel", shape, "not colours")


def test_labels_that_are_no_classes(cfg, tmp_path, label):
    sample = save(tmp_path, _picture(), label)
    sample["sem_seg_file_name"] = str(tmp_path / "label.tif")
    Image.fromarray(label.astype(np.float32)).save(sample["sem_seg_file_name"])
    refuses(cfg, sample, "label.tif", "float32", "class indices")
    values = label.astype(np.int32)
    values[0, :2] = -1, 2**30
    Image.fromarray(values).save(sample["sem_seg_file_name"])
    refuses(cfg, sample, "label.tif", "[-1, 1073741824]", "0 to 4")
    Image.fromarray((np.arange(960) % 255).reshape(SIZE).astype(np.uint8)).save(
        sample["sem_seg_file_name"]
    )
    refuses(cfg, sample, "[5, 6, 7, 8, 9, 10, 11, 12, 13, 14, ...]")


def test_a_picture_made_to_fill_the_memory(cfg, tmp_path, label):
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    parts = b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), chunk(b"IDAT", b""), chunk(b"IEND", b"")
    sample = save(tmp_path, _picture(), label)
    (tmp_path / "image.png").write_bytes(b"".join(parts))
    refuses(cfg, sample, "image.png: not a whole picture", "3600000000 pixels")
