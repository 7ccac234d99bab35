"""Numbers, one for each pixel, as PNGs."""

from pathlib import Path

import cv2
import numpy as np

from mask2former.files import open_picture, read_numbers

ADVICE = "write the predictions again"  # about a file that is missing or broken


def write_png(path: Path, pixels: np.ndarray) -> None:
    """(H,W) bool, which take a bit each, uint8 or uint16; or (H,W,3) uint8, blue first."""
    is_bool = pixels.dtype == bool
    options = (cv2.IMWRITE_PNG_BILEVEL, 1) if is_bool else ()
    written, data = cv2.imencode(".png", pixels.view(np.uint8) if is_bool else pixels, options)
    assert written, (path, pixels.dtype, pixels.shape)
    path.write_bytes(data)


def write_segment_ids(path: Path, ids: np.ndarray) -> None:
    """(H,W) of 0..2**24-1, as colours: id = R + 256 G + 256 * 256 B."""
    channels = ids.astype("<u4").view(np.uint8).reshape(*ids.shape, 4)
    write_png(path, np.ascontiguousarray(channels[..., 2::-1]))


def read_mask(path: Path) -> tuple[np.ndarray, tuple[int, int]]:
    """Rows of bits (H,B), as PackedMasks has them: where the picture is not 0; and (H,W).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is cut off, no picture, or one of colours.
    """
    with open_picture(path, ADVICE) as image:
        size = image.height, image.width
        if image.mode == "1":  # Pillow packs such rows itself, in the same order
            return np.frombuffer(image.tobytes(), np.uint8).reshape(image.height, -1), size
    return np.packbits(read_numbers(path, ADVICE) != 0, axis=1), size


def box_of(bits: np.ndarray) -> list[int]:
    """x, y, width, height of a mask, of rows of bits (H,B); zeros if it has no pixels."""
    rows = np.flatnonzero(bits.any(1))
    columns = np.flatnonzero(np.unpackbits(np.bitwise_or.reduce(bits)))
    if not len(rows):
        return [0, 0, 0, 0]
    (x, right), (y, bottom) = columns[[0, -1]].tolist(), rows[[0, -1]].tolist()
    return [x, y, right + 1 - x, bottom + 1 - y]
