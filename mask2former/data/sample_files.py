"""The files of a sample: pictures and label maps, with a sentence about those that are broken."""

import contextlib
import io
from collections.abc import Iterator

import numpy as np
from detectron2.data import detection_utils
from detectron2.utils.file_io import PathManager
from PIL import ExifTags, Image, ImageOps

from mask2former.data.errors import SampleError
from mask2former.files import PNG_END, picture_fault

# Pillow's modes of one channel with more than 8 bits, which it cuts off at 255 on conversion.
_DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
# In one of these parts of a PNG, Pillow finds an EXIF orientation; they may come last.
_ORIENTED_PNG = (b"eXIf", b"XML:com.adobe.xmp", b"Raw profile type exif")


def read_image(path: str, image_format: str | None) -> np.ndarray:
    """The pixels of a file, turned as its EXIF orientation says.

    Args:
        image_format: a PIL mode, "BGR" or "YUV-BT.601"; None: as the file has them.

    Raises:
        SampleError: there is no such file, or it is broken.
    """
    image = _load(path)
    if image.mode == image_format == "RGB":  # a conversion would copy it
        return np.asarray(image)
    return detection_utils.convert_PIL_to_numpy(image, image_format)


def read_picture(path: str, image_format: str) -> np.ndarray:
    """A picture (H,W,3), or (H,W,1) for the format L, uint8, which cannot be written to.

    Raises:
        SampleError: there is no such file, or it is broken, or has too many bits.
    """
    picture = np.asarray(PictureFile(path, image_format).read())
    return picture[:, :, None] if picture.ndim == 2 else picture


class PictureFile:
    """A picture of which, where its format allows it, no more rows are decoded than are needed.

    PNG allows it, whose rows come one after the other; decoding it is most of a sample's work.
    """

    def __init__(self, path: str, image_format: str):
        """
        Args:
            image_format: "RGB", "BGR", "L" or "YUV-BT.601".

        Raises:
            SampleError: there is no such file, or it is broken, or has too many bits.
        """
        self.path = path
        self.image_format = image_format
        with _named_faults(path):
            with PathManager.open(path, "rb") as file:
                content = file.read()
            image = Image.open(io.BytesIO(content))
            self._skips_rows = _rows_come_in_order(image, content)
            self._image = image if self._skips_rows else _upright(image)
        if image.mode in _DEEP_MODES:
            raise SampleError(
                f"{path}: a grey picture of more than 8 bits (Pillow's mode {image.mode}), of "
                "which all above 255 would be white; scale it to 8 bits"
            )

    @property
    def size(self) -> tuple[int, int]:
        """(H, W), upright: turned as the EXIF orientation says."""
        return self._image.height, self._image.width

    def read(self, num_rows: int | None = None) -> Image.Image | np.ndarray:
        """The picture, once. Its channels are those of the format, as Pillow keeps them (RGB, L).

        Of that, a part can be resized before all of it is copied into an array. Only for
        YUV-BT.601, which Pillow does not have, it is an array (H,W,3) of floating numbers.

        Args:
            num_rows: of the rows after these, nobody looks at what is in them; None: all count.

        Raises:
            SampleError: the file is broken.
        """
        image = self._image
        if self._skips_rows:
            if num_rows is not None:
                codec, _, *rest = image.tile[0]
                image.tile = [(codec, (0, 0, image.width, num_rows), *rest)]
            with _named_faults(self.path):
                image.load()
        if self.image_format == "BGR":
            return Image.merge("RGB", image.convert("RGB").split()[::-1])
        if self.image_format == image.mode:  # a conversion would copy it
            return image
        if self.image_format in ("RGB", "L"):
            return image.convert(self.image_format)
        return detection_utils.convert_PIL_to_numpy(image, self.image_format)


def _load(path: str) -> Image.Image:
    """The file as it is, but upright."""
    with _named_faults(path), PathManager.open(path, "rb") as file:
        return _upright(Image.open(file))


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        return ImageOps.exif_transpose(image)
    return image


def _rows_come_in_order(image: Image.Image, content: bytes) -> bool:
    """Whether Pillow may stop before the last row.

    It may in a PNG that says nothing of an orientation, and that ends as one: where one was cut
    off must be found, also below what is seen of it.
    """
    is_one = len(image.tile) == 1 and getattr(image, "n_frames", 1) == 1
    if image.format != "PNG" or image.info.get("interlace") or not is_one:
        return False
    return content.endswith(PNG_END) and not any(word in content for word in _ORIENTED_PNG)


@contextlib.contextmanager
def _named_faults(path: str) -> Iterator[None]:
    """Makes SampleErrors of what Pillow raises."""
    try:
        yield
    except FileNotFoundError as error:
        raise SampleError(f"{path}: no such file; the dataset's list names it") from error
    # On a broken file, or on one made to fill the memory.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise SampleError(
            f"{path}: not a whole picture ({picture_fault(error)}); copy or download this file "
            "again"
        ) from error


def check_label_map(path: str, label: np.ndarray) -> None:
    """
    Raises:
        SampleError: these pixels, read as the file has them, are not (H,W) whole numbers.
    """
    if label.ndim != 2 or label.dtype.kind not in "bui":
        raise SampleError(
            f"{path}: a label map has one channel of whole numbers, this one has the shape "
            f"{label.shape} and the type {label.dtype}; save class indices, not colours"
        )


def count_values(label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sorted values of a label map (H,W), and the number of pixels of each."""
    if label.dtype == np.uint8:  # Pillow counts bytes far faster than NumPy
        counts = np.array(Image.fromarray(label).histogram())
    elif label.dtype.itemsize <= 2 and label.dtype.kind in "bu":
        counts = np.bincount(label.ravel())  # far faster than a sort
    else:
        return np.unique(label, return_counts=True)
    values = np.flatnonzero(counts)
    return values, counts[values]


def check_label_values(path: str, values: np.ndarray, num_classes: int, ignore_value: int) -> None:
    """
    Raises:
        SampleError: one of the values of a label map is no class and not the ignored value.
    """
    is_class = (values >= 0) & (values < num_classes)
    unknown = values[~is_class & (values != ignore_value)]
    if len(unknown):
        shown = ", ".join(map(str, unknown[:10].tolist())) + ", ..." * (len(unknown) > 10)
        raise SampleError(
            f"{path}: label values [{shown}] are neither one of the {num_classes} classes (0 to "
            f"{num_classes - 1}) nor the ignore value {ignore_value}; correct the file or "
            "MODEL.SEM_SEG_HEAD.NUM_CLASSES"
        )
