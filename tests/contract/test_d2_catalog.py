"""Catalogs and metadata of detectron2, on either provider."""

import copy
import pickle

import pytest
from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog

NAME = "contract_catalog"
# detectron2 asserts; ours are ValueErrors too
CONFLICT = AssertionError


@pytest.fixture(autouse=True)
def leave_no_entries():
    yield
    for catalog in (DatasetCatalog, MetadataCatalog):
        for name in [name for name in catalog if name.startswith(NAME)]:
            catalog.remove(name)


def test_dataset_is_loaded_at_every_get():
    calls = []

    def load():
        calls.append(1)
        return [{"image_id": len(calls)}]

    DatasetCatalog.register(NAME, load)
    assert not calls
    assert DatasetCatalog.get(NAME) == [{"image_id": 1}]
    assert DatasetCatalog.get(NAME) == [{"image_id": 2}]
    assert DatasetCatalog[NAME] is load


def test_dataset_catalog_is_a_mapping_of_names():
    DatasetCatalog.register(NAME, list)
    assert NAME in DatasetCatalog and NAME in DatasetCatalog.list()
    assert NAME in str(DatasetCatalog)
    DatasetCatalog.remove(NAME)
    assert NAME not in DatasetCatalog
    with pytest.raises(KeyError):
        DatasetCatalog.remove(NAME)


def test_second_registration_is_refused_and_changes_nothing():
    DatasetCatalog.register(NAME, lambda: ["first"])
    with pytest.raises(CONFLICT, match=NAME):
        DatasetCatalog.register(NAME, lambda: ["second"])
    assert DatasetCatalog.get(NAME) == ["first"]


def test_only_functions_can_be_registered():
    with pytest.raises(CONFLICT):
        DatasetCatalog.register(NAME, [{"image_id": 1}])
    assert NAME not in DatasetCatalog


def test_unknown_dataset_is_named_beside_the_known_ones():
    DatasetCatalog.register(NAME, list)
    with pytest.raises(KeyError, match=f"{NAME}_unknown.*{NAME}"):
        DatasetCatalog.get(f"{NAME}_unknown")


def test_metadata_comes_into_being_when_asked_for():
    metadata = MetadataCatalog.get(NAME)
    assert metadata.name == NAME
    assert MetadataCatalog.get(NAME) is metadata is MetadataCatalog[NAME]
    assert NAME in MetadataCatalog.list() and NAME in str(MetadataCatalog)
    with pytest.raises(KeyError):
        MetadataCatalog[f"{NAME}_unknown"]
    with pytest.raises(CONFLICT):
        MetadataCatalog.get("")


def test_metadata_attributes_are_set_once():
    metadata = MetadataCatalog.get(NAME).set(thing_classes=["car"], ignore_label=255)
    metadata.evaluator_type = "sem_seg"
    metadata.set(thing_classes=["car"], ignore_label=255)  # the same again is allowed
    for change in ({"ignore_label": 0}, {"thing_classes": ["bus"]}, {"name": "other"}):
        with pytest.raises(CONFLICT):
            metadata.set(**change)
    assert metadata.as_dict() == {
        "name": NAME,
        "thing_classes": ["car"],
        "ignore_label": 255,
        "evaluator_type": "sem_seg",
    }


def test_metadata_can_be_deleted_and_set_anew():
    metadata = Metadata(name=NAME, ignore_label=255)
    del metadata.ignore_label
    metadata.ignore_label = 0
    assert metadata.ignore_label == 0


def test_missing_attribute_says_what_there_is():
    metadata = MetadataCatalog.get(NAME).set(stuff_classes=["road"])
    with pytest.raises(AttributeError, match=rf"(?s)thing_colors.*{NAME}|{NAME}.*thing_colors"):
        _ = metadata.thing_colors
    with pytest.raises(AttributeError, match="stuff_classes"):
        _ = metadata.thing_colors
    assert not hasattr(metadata, "thing_colors")
    assert metadata.get("thing_colors") is None
    assert metadata.get("thing_colors", 3) == 3
    assert metadata.get("stuff_classes") == ["road"]


def test_as_dict_is_a_copy():
    metadata = Metadata(name=NAME, ignore_label=255)
    metadata.as_dict()["ignore_label"] = 0
    assert metadata.ignore_label == 255


def test_metadata_without_a_name():
    assert Metadata().name == "N/A"


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_metadata_travels_to_workers(duplicate):
    metadata = Metadata(name=NAME, thing_classes=["car"])
    other = duplicate(metadata)
    assert other == metadata and other is not metadata
    with pytest.raises(CONFLICT):
        other.thing_classes = []
