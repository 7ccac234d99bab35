"""Datasets for a test, which the catalogs forget afterwards."""

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

PREFIX = "contract_dataset_"


@pytest.fixture
def register():
    """Registers dataset dicts with their metadata and gives the name that they got."""

    def add(name, samples, **metadata):
        DatasetCatalog.register(PREFIX + name, lambda: samples)
        MetadataCatalog.get(PREFIX + name).set(**metadata)
        return PREFIX + name

    yield add
    for catalog in (DatasetCatalog, MetadataCatalog):
        for name in [name for name in catalog if name.startswith(PREFIX)]:
            catalog.remove(name)
