"""Importing this package puts the built-in datasets into detectron2's catalogs."""

from mask2former.data.datasets.ade20k import register_all_ade20k
from mask2former.data.datasets.ade20k_full import register_all_ade20k_full
from mask2former.data.datasets.cityscapes import register_all_cityscapes
from mask2former.data.datasets.coco import register_all_coco
from mask2former.data.datasets.coco_stuff_10k import register_all_coco_stuff_10k
from mask2former.data.datasets.mapillary_vistas import register_all_mapillary_vistas
from mask2former.data.files import datasets_root


def register_all(root: str) -> None:
    """All built-in datasets, in folders of `root`, in place of any others of these names."""
    register_all_cityscapes(root)
    register_all_coco(root)
    register_all_coco_stuff_10k(root)
    register_all_ade20k(root)
    register_all_ade20k_full(root)
    register_all_mapillary_vistas(root)


register_all(datasets_root())
