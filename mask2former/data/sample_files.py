"""The files of a sample: pictures and label maps, with a sentence about those that are broken."""

import numpy as np
from detectron2.data import detection_utils
from detectron2.utils.file_io import PathManager
from PIL import ExifTags, Image, ImageOps

from mask2former.data.errors import SampleError
from mask2former.files import picture_fault

# Pillow's modes of one channel with more than 8 bits, which it cuts off at 255 on conversion.
_DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")


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


def load_picture(path: str, image_format: str) -> Image.Image | np.ndarray:
    """A picture whose channels are those of the format, as Pillow keeps it (mode RGB or L).

    Of that, a part can be resized before all of it is copied into an array. Only for YUV-BT.601,
    which Pillow does not have, it is an array (H,W,3) of floating numbers.

    Raises:
        SampleError: there is no such file, or it is broken, or has too many bits.
    """
    image = _load(path)
    if image.mode in _DEEP_MODES:
        raise SampleError(
            f"{path}: a grey picture of more than 8 bits (Pillow's mode {image.mode}), of which "
            "all above 255 would be white; scale it to 8 bits"
        )
    if image_format == "BGR":
        return Image.merge("RGB", image.convert("RGB").split()[::-1])
    if image_format in ("RGB", "L"):
        return image if image.mode == image_format else image.convert(image_format)
    return detection_utils.convert_PIL_to_numpy(image, image_format)


def read_picture(path: str, image_format: str) -> np.ndarray:
    """A picture (H,W,3), or (H,W,1) for the format L, uint8, which cannot be written to.

    Raises:
        SampleError: there is no such file, or it is broken, or has too many bits.
    """
    picture = np.asarray(load_picture(path, image_format))
    return picture[:, :, None] if picture.ndim == 2 else picture


def _load(path: str) -> Image.Image:
    """The file as it is, but upright: turned as its EXIF orientation says."""
    try:
        with PathManager.open(path, "rb") as file:
            image = Image.open(file)
            image.load()
            if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
                image = ImageOps.exif_transpose(image)
            return image
    except FileNotFoundError as error:
        raise SampleError(f"{path}: no such file; the dataset's list names it") from error
    # What Pillow raises on a broken file, or on one made to fill the memory.
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
