"""Datasets for a test; the catalogs forget them afterwards, see tests/conftest.py."""

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

    return add
