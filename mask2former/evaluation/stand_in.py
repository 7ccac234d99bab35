"""Datasets that are in the catalogs for as long as an evaluator is being made."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog


@contextlib.contextmanager
def stand_in(name: str, samples: Sequence[dict] = (), **changes: Any) -> Iterator[str]:
    """Yields the name of a dataset with other dicts than `name` has, and with changed metadata.

    detectron2's evaluators take a dataset's name and look the rest up when they are made, not
    later. So ground truth can be shown to them that the dataset itself does not have.
    """
    metadata = {**MetadataCatalog.get(name).as_dict(), **changes}
    del metadata["name"]
    other = f"{name} as it is evaluated"
    DatasetCatalog.register(other, lambda: list(samples))
    MetadataCatalog.get(other).set(**metadata)
    try:
        yield other
    finally:
        DatasetCatalog.remove(other)
        MetadataCatalog.remove(other)
