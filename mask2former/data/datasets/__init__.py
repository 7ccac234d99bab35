"""Importing this package puts the built-in datasets into detectron2's catalogs."""

import os

from mask2former.data.datasets.cityscapes import register_all_cityscapes


def register_all(root: str) -> None:
    """All built-in datasets, in folders of `root`, in place of any others of these names."""
    register_all_cityscapes(root)


register_all(os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets")))
