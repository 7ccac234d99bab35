"""Importing this package puts the built-in datasets into detectron2's catalogs."""

import os

from mask2former.data.datasets.cityscapes import register_all_cityscapes

register_all_cityscapes(os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets")))
