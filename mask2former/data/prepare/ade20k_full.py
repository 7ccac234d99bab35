"""From unpacked ADE20K_2021_17_01 to what training reads: smaller pictures, 16-bit label maps.

The download's index_ade20k.pkl is not needed: it lists the pictures that lie in images/ADE.
"""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from mask2former.data.datasets.ade20k import SPLITS
from mask2former.data.datasets.ade20k_full import CLASSES, IGNORE_LABEL
from mask2former.data.files import for_each
from mask2former.files import atomic_file, open_picture

SHORT_SIDE = 512  # official: pictures whose shorter side is longer are scaled down to it
AGAIN = "unpack ADE20K_2021_17_01.zip again"

# Of all ids that a *_seg.png can have. The ids of classes that are not among the 847 are ignored.
_INDICES = np.full(256 * 26, IGNORE_LABEL, np.uint16)
_INDICES[[row["id"] for row in CLASSES]] = np.arange(len(CLASSES))


def prepare_ade20k_full(root: str | Path, num_workers: int = 1, show_progress: bool = True) -> None:
    """Write images_detectron2/SPLIT/*.jpg and annotations_detectron2/SPLIT/*.tif.

    Outputs that are there and whole are kept, so an interrupted run is simply started again.

    Args:
        root: the directory with images/ADE/.
        num_workers: processes; 1 works in this one.

    Raises:
        FileNotFoundError: there are no pictures, or some without labels.
        ValueError: a file is broken.
    """
    root = Path(root)
    pictures = sorted(_find_pictures(root / "images" / "ADE"))
    if not pictures:
        raise FileNotFoundError(
            f"{root / 'images' / 'ADE'}: no ADE_*.jpg in it; unpack ADE20K_2021_17_01.zip so that "
            f"{root} holds images/ADE/"
        )
    for kind in ("images_detectron2", "annotations_detectron2"):
        for directory in SPLITS.values():
            (root / kind / directory).mkdir(parents=True, exist_ok=True)
    for_each(
        partial(write_smaller, root=root),
        pictures,
        "pictures and label maps",
        is_done=lambda picture: all(map(_is_whole, _outputs(picture, root))),
        num_workers=num_workers,
        show_progress=show_progress,
    )


def write_smaller(picture: Path, root: Path) -> None:
    """Write a picture and its label map with a shorter side of at most SHORT_SIDE pixels.

    Raises:
        FileNotFoundError: it has no *_seg.png.
        ValueError: a file is broken.
    """
    with open_picture(picture, AGAIN) as opened:
        image = np.asarray(opened)  # (H,W,3), or (H,W) of a grey picture
    indices = _read_indices(picture.with_name(f"{picture.stem}_seg.png"))  # (H,W)
    height, width = image.shape[:2]
    if indices.shape != (height, width):
        raise ValueError(
            f"{picture}: {height}x{width} pixels, and its *_seg.png has "
            f"{indices.shape[0]}x{indices.shape[1]}; {AGAIN}"
        )
    short = min(height, width)
    if short > SHORT_SIDE:
        size = tuple(round(side / short * SHORT_SIDE) for side in (width, height))
        image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        indices = cv2.resize(indices, size, interpolation=cv2.INTER_NEAREST)
    small, labels = _outputs(picture, root)
    with atomic_file(small) as temporary:
        Image.fromarray(image).save(temporary, format="JPEG")
    with atomic_file(labels) as temporary:
        Image.fromarray(indices).save(temporary, format="TIFF")


def _read_indices(path: Path) -> np.ndarray:
    """A *_seg.png, whose red and green are an id, as class indices: (H,W) uint16."""
    with open_picture(path, AGAIN) as opened:
        colors = np.asarray(opened)
    if colors.ndim != 3 or colors.dtype != np.uint8:
        raise ValueError(
            f"{path}: holds {colors.dtype} of shape {colors.shape}, and *_seg.png have 8 bit and "
            f"three channels; {AGAIN}"
        )
    ids = colors[..., 0].astype(np.int32) // 10 * 256 + colors[..., 1]
    return _INDICES[ids]


def _find_pictures(directory: Path) -> Iterator[Path]:
    """All ADE_*.jpg below a directory. Beside each lies a directory of its parts' masks."""
    if not directory.is_dir():
        return
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.startswith("ADE_") and entry.name.endswith(".jpg"):
                yield Path(entry.path)
            elif entry.is_dir() and not entry.name.startswith("ADE_"):
                yield from _find_pictures(Path(entry.path))


def _outputs(picture: Path, root: Path) -> tuple[Path, Path]:
    split = SPLITS["val" if picture.name.split("_")[1] == "val" else "train"]
    return (
        root / "images_detectron2" / split / picture.name,
        root / "annotations_detectron2" / split / f"{picture.stem}.tif",
    )


def _is_whole(path: Path) -> bool:
    """Whether a picture is there with its last bytes; an interrupted write lacks them."""
    if path.suffix == ".jpg":
        return path.is_file() and path.read_bytes().endswith(b"\xff\xd9")
    try:
        with Image.open(path) as image:  # uncompressed
            return path.stat().st_size > 2 * image.width * image.height
    except (OSError, SyntaxError):  # not there, or cut off within its header
        return False
