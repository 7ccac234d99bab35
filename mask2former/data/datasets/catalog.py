"""Putting a dataset into detectron2's two catalogs."""

from collections.abc import Callable
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog


def register(name: str, load: Callable[[], list[dict]], **metadata: Any) -> None:
    """Give `name` to a dataset, in place of another of this name.

    The real detectron2 registers some of our names on import; ours replace them, so that both
    providers behave alike.
    """
    if name in DatasetCatalog.list():
        DatasetCatalog.remove(name)
    if name in MetadataCatalog.list():
        MetadataCatalog.remove(name)  # metadata, once set, refuses other values
    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(**metadata)
