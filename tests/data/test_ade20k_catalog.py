"""ADE20K and Mapillary Vistas in the catalogs: metadata as their official code has it."""

import json
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from metadata_facts import compact

from mask2former.data.datasets import register_all
from mask2former.data.datasets.ade20k import CLASSES, THINGS, segment_color
from mask2former.data.datasets.ade20k_full import CLASSES as FULL_CLASSES

FACTS = json.loads(
    (Path(__file__).parents[1] / "goldens" / "ade20k_mapillary_metadata.json").read_text()
)


@pytest.mark.parametrize("name", sorted(FACTS))
def test_metadata_is_the_official_one(name, default_root):
    metadata = MetadataCatalog.get(name).as_dict()
    assert metadata.pop("name") == name
    assert {key: compact(value) for key, value in metadata.items()} == FACTS[name]


def test_id_maps_have_numbers_as_keys():
    for name in FACTS:
        metadata = MetadataCatalog.get(name).as_dict()
        for key in ("thing_dataset_id_to_contiguous_id", "stuff_dataset_id_to_contiguous_id"):
            assert all(isinstance(number, int) for number in metadata.get(key, {}))


def test_class_tables_are_consistent():
    assert [row["id"] for row in CLASSES] == list(range(150))
    assert len(THINGS) == 100 and all(row["instance_name"] for row in THINGS)
    assert len({tuple(segment_color(row)) for row in CLASSES}) == 150  # they are ids
    assert len({row["id"] for row in FULL_CLASSES}) == len(FULL_CLASSES) == 847


@pytest.mark.parametrize("name", sorted(FACTS))
def test_missing_files_are_named_with_what_to_do(name, tmp_path, default_root):
    register_all(str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError) as error:
        DatasetCatalog.get(name)
    message = str(error.value)
    assert message.startswith(f"{tmp_path}/nowhere/") and "\n" not in message
    assert "; unpack " in message
    script = {
        "ade20k_sem_seg": "prepare_ade20k_sem_seg.py",
        "ade20k_instance": "prepare_ade20k_ins_seg.py",
        "ade20k_panoptic": "prepare_ade20k_pan_seg.py",
        "ade20k_full_sem_seg": "prepare_ade20k_full_sem_seg.py",
    }.get(name.rpartition("_")[0], "v1.2")
    assert script in message
