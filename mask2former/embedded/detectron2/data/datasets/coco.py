"""Datasets whose ground truth lies in files beside the images."""

import logging
import os

from detectron2 import _missing_attribute
from detectron2.utils.file_io import PathManager

__all__ = ["load_sem_seg"]

logger = logging.getLogger(__name__)


def load_sem_seg(
    gt_root: str, image_root: str, gt_ext: str = "png", image_ext: str = "jpg"
) -> list[dict]:
    """Samples of a semantic segmentation dataset in two flat directories.

    Args:
        gt_root, image_root: `a.png` in one belongs to `a.jpg` in the other.
        gt_ext, image_ext: how the names end after what they have in common.

    Returns:
        dicts with "file_name" and "sem_seg_file_name", sorted by name. Where one of a pair is
        missing, the other is left out, with a warning.

    Raises:
        FileNotFoundError: a directory has no such files, or no two files belong together.
    """
    images = _files_by_stem(image_root, image_ext)
    labels = _files_by_stem(gt_root, gt_ext)
    for root, ext, files in ((image_root, image_ext, images), (gt_root, gt_ext, labels)):
        if not files:
            raise FileNotFoundError(
                f"{root} contains no file that ends in {ext}; check the dataset's path"
            )
    stems = sorted(images.keys() & labels.keys())
    if not stems:
        raise FileNotFoundError(
            f"no label in {gt_root} has the name of an image in {image_root}; "
            f"expected e.g. {min(images)}.{gt_ext.lstrip('.')}"
        )
    if len(stems) < max(len(images), len(labels)):
        logger.warning(
            "%s has %d images and %s %d labels; the %d that belong together are used",
            image_root,
            len(images),
            gt_root,
            len(labels),
            len(stems),
        )
    return [{"file_name": images[s], "sem_seg_file_name": labels[s]} for s in stems]


def _files_by_stem(root: str, ext: str) -> dict[str, str]:
    """Name without the extension -> path, of the files directly in `root`."""
    names = [name for name in PathManager.ls(root) if name.endswith(ext)]
    return {name[: -len(ext)].rstrip("."): os.path.join(root, name) for name in names}


__getattr__ = _missing_attribute(__name__)
