"""Maps of segment ids, kept as the colours of a PNG: id = R + 256 G + 256 * 256 B."""

import numpy as np

from mask2former.files import open_picture


def read_segment_ids(path: str, advice: str = "prepare the dataset again") -> np.ndarray:
    """(H,W) int32 ids.

    Args:
        advice: what to do about a file that is missing or broken; it ends the sentence.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is broken, or has no colours.
    """
    with open_picture(path, advice) as image:
        if image.mode not in ("RGB", "RGBA"):
            raise ValueError(f"{path}: a picture of mode {image.mode}; segment ids are RGB colours")
        # Pillow keeps 4 bytes a pixel, which are an id but for the last.
        fourth = "RGBX" if image.mode == "RGB" else "RGBA"
        pixels = np.frombuffer(image.tobytes("raw", fourth), "<i4")
    return (pixels & 0xFFFFFF).reshape(image.height, image.width)
