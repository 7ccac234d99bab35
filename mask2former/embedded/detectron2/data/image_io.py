"""Images as arrays: reading them upright, colour formats, sizes."""

from typing import Any

import numpy as np
import torch
from PIL import Image

from detectron2.utils.file_io import PathManager

__all__ = [
    "SizeMismatchError",
    "check_image_size",
    "convert_PIL_to_numpy",
    "convert_image_to_rgb",
    "read_image",
]

# ITU-R BT.601, analogue YUV of RGB in [0, 1]
_RGB_TO_YUV = np.array(
    [[0.299, 0.587, 0.114], [-0.14713, -0.28886, 0.436], [0.615, -0.51499, -0.10001]]
)
_YUV_TO_RGB = np.array([[1.0, 0.0, 1.13983], [1.0, -0.39465, -0.58060], [1.0, 2.03211, 0.0]])

_EXIF_ORIENTATION = 0x0112
# the EXIF standard, tag Orientation: what brings the picture upright
_UPRIGHT = {
    2: Image.FLIP_LEFT_RIGHT,
    3: Image.ROTATE_180,
    4: Image.FLIP_TOP_BOTTOM,
    5: Image.TRANSPOSE,
    6: Image.ROTATE_270,
    7: Image.TRANSVERSE,
    8: Image.ROTATE_90,
}


# what Pillow's decoders raise on damaged bytes
_BROKEN_IMAGE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


class SizeMismatchError(ValueError):
    """An image has not the size that its dataset says."""


def read_image(file_name: str, format: str | None = None) -> np.ndarray:
    """Read an image upright, as its EXIF orientation says.

    Args:
        format: "RGB", "BGR" (H, W, 3) uint8; "L" (H, W, 1) uint8; "YUV-BT.601" (H, W, 3) float;
            another Pillow mode; None keeps what the file has.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: the file is no image, or is truncated.
    """
    with PathManager.open(file_name, "rb") as file:
        try:
            image = Image.open(file)
            image.load()
            orientation = image.getexif().get(_EXIF_ORIENTATION)
        except _BROKEN_IMAGE as error:
            raise OSError(
                f"{file_name} is no readable image ({error}); restore the file"
            ) from error
    if orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[orientation])
    return convert_PIL_to_numpy(image, format)


def convert_PIL_to_numpy(image: Image.Image, format: str | None) -> np.ndarray:
    """(H, W), (H, W, 1) for "L" or (H, W, C); formats as in `read_image`."""
    if format is not None:
        mode = "RGB" if format in ("BGR", "YUV-BT.601") else format
        if mode not in Image.MODES:
            raise ValueError(f"image format {format!r}; set it to RGB, BGR, L or YUV-BT.601")
        image = image.convert(mode)
    array = np.asarray(image)
    if format == "BGR":
        return array[:, :, ::-1]
    if format == "L":
        return array[:, :, None]
    if format == "YUV-BT.601":
        return (array / 255.0) @ _RGB_TO_YUV.T
    return array


def convert_image_to_rgb(image: np.ndarray | torch.Tensor, format: str) -> np.ndarray:
    """(H, W, C) in RGB, BGR, L or YUV-BT.601 -> (H, W, 3) RGB in [0, 255].

    The type stays; YUV-BT.601 comes out floating.
    """
    if isinstance(image, torch.Tensor):
        image = image.cpu().numpy()
    if format == "RGB":
        return image
    if format == "BGR":
        return image[:, :, ::-1]
    if format == "L":
        return np.repeat(image, 3, axis=2)
    if format == "YUV-BT.601":
        return image @ _YUV_TO_RGB.T * 255.0
    raise ValueError(f"image format {format!r}; set it to RGB, BGR, L or YUV-BT.601")


def check_image_size(dataset_dict: dict[str, Any], image: np.ndarray) -> None:
    """Compare "width" and "height" with the image; set them where they are absent.

    Raises:
        SizeMismatchError: they differ.
    """
    height, width = image.shape[:2]
    expected = (dataset_dict.get("width", width), dataset_dict.get("height", height))
    if expected != (width, height):
        raise SizeMismatchError(
            f"{dataset_dict.get('file_name', 'an image')} is {width}x{height} (width x height), "
            f"but its dataset says {expected[0]}x{expected[1]}; correct the annotations"
        )
    dataset_dict["width"], dataset_dict["height"] = width, height
