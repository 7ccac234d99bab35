"""The files of a sample: pictures and label maps, with a sentence about those that are broken."""

import numpy as np
from detectron2.data import detection_utils
from detectron2.utils.file_io import PathManager
from PIL import Image

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
    try:
        return detection_utils.read_image(path, format=image_format)
    except FileNotFoundError as error:
        raise SampleError(f"{path}: no such file; the dataset's list names it") from error
    # What Pillow raises on a broken file, or on one made to fill the memory.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        # The embedded detectron2 has made a sentence of it.
        fault = picture_fault(error.__cause__ or error)
        raise SampleError(
            f"{path}: not a whole picture ({fault}); copy or download this file again"
        ) from error


def read_picture(path: str, image_format: str) -> np.ndarray:
    """A picture (H,W,3), or (H,W,1) for the format L, uint8.

    Raises:
        SampleError: there is no such file, or it is broken, or has too many bits.
    """
    image = read_image(path, image_format)
    with PathManager.open(path, "rb") as file, Image.open(file) as header:
        mode = header.mode
    if mode in _DEEP_MODES:
        raise SampleError(
            f"{path}: a grey picture of more than 8 bits (Pillow's mode {mode}), of which all "
            "above 255 would be white; scale it to 8 bits"
        )
    return image


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
    if label.dtype.itemsize <= 2 and label.dtype.kind in "bu":
        counts = np.bincount(label.ravel())  # far faster than a sort
        values = np.flatnonzero(counts)
        return values, counts[values]
    return np.unique(label, return_counts=True)


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
