"""The catalog entries: metadata as detectron2 has it, dicts that agree with the files."""

import json
from pathlib import Path

import numpy as np
import pycocotools.mask
import pytest
from cityscapesscripts.helpers.labels import labels
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from PIL import Image

from mask2former.data.datasets import register_all_cityscapes
from mask2former.data.datasets.cityscapes import CLASSES

FACTS = json.loads((Path(__file__).parents[1] / "goldens" / "cityscapes_metadata.json").read_text())


def _expected(task: str, split: str, directory: str) -> dict:
    """detectron2's own metadata of the val split, carried over to another split or directory."""
    expected = {}
    for key, value in FACTS["entries"][f"cityscapes_fine_{task}_val"].items():
        if isinstance(value, dict):
            value = {int(number): train_id for number, train_id in value.items()}
        elif value in ("NAMES", "COLORS"):
            value = FACTS[value.lower()]
        elif isinstance(value, str) and "/" in value:
            value = value.replace("val", split).replace("/cityscapes/", f"/{directory}/")
        expected[key] = value
    return expected


@pytest.mark.parametrize("task", ["sem_seg", "instance_seg", "panoptic"])
@pytest.mark.parametrize("prefix", ["", "mini_"])
def test_metadata_is_as_detectron2_has_it(task, prefix, default_root):
    splits = ("train", "val") if task == "panoptic" else ("train", "val", "test")
    for split in splits:
        metadata = MetadataCatalog.get(f"{prefix}cityscapes_fine_{task}_{split}").as_dict()
        expected = _expected(task, split, f"{prefix}cityscapes")
        expected["name"] = f"{prefix}cityscapes_fine_{task}_{split}"
        if task == "sem_seg":  # ours besides, so that predictions are drawn in the known colours
            assert metadata.pop("stuff_colors") == FACTS["colors"]
        assert metadata == expected


def test_class_table_is_that_of_cityscapesscripts():
    evaluated = sorted(
        (label for label in labels if not label.ignoreInEval), key=lambda label: label.trainId
    )
    assert [
        (row["id"], row["train_id"], row["name"], tuple(row["color"]), row["is_thing"])
        for row in CLASSES
    ] == [
        (label.id, label.trainId, label.name, label.color, label.hasInstances)
        for label in evaluated
    ]


def test_registering_again_moves_the_datasets(tmp_path, default_root):
    register_all_cityscapes(str(tmp_path))
    metadata = MetadataCatalog.get("cityscapes_fine_sem_seg_val")
    assert metadata.image_dir == f"{tmp_path}/cityscapes/leftImg8bit/val/"
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        DatasetCatalog.get("cityscapes_fine_sem_seg_val")


def test_semantic_dicts_name_existing_files_of_the_same_picture(datasets_root):
    for split, count in (("train", 6), ("val", 3), ("test", 4)):
        dicts = DatasetCatalog.get(f"mini_cityscapes_fine_sem_seg_{split}")
        assert len(dicts) == count
        assert dicts == sorted(dicts, key=lambda entry: entry["file_name"])
        for entry in dicts:
            image, label = Image.open(entry["file_name"]), Image.open(entry["sem_seg_file_name"])
            assert image.size == label.size == (entry["width"], entry["height"]) == (192, 96)
            stem = Path(entry["file_name"]).name.removesuffix("_leftImg8bit.png")
            assert Path(entry["sem_seg_file_name"]).name == f"{stem}_gtFine_labelTrainIds.png"


def test_instance_masks_are_those_of_the_instance_ids(datasets_root):
    things = [row["id"] for row in CLASSES if row["is_thing"]]
    crowds = 0
    for entry in DatasetCatalog.get("mini_cityscapes_fine_instance_seg_train"):
        ids = np.asarray(Image.open(_label_file(entry, "instanceIds")))
        seen = np.zeros_like(ids)
        for number, annotation in enumerate(entry["annotations"], start=1):
            mask = pycocotools.mask.decode(annotation["segmentation"]).astype(bool)
            (instance_id,) = np.unique(ids[mask]).tolist()
            assert mask.sum() == (ids == instance_id).sum()
            crowds += annotation["iscrowd"]
            class_id = instance_id if annotation["iscrowd"] else instance_id // 1000
            assert annotation["category_id"] == things.index(class_id)
            rows, columns = np.nonzero(mask)
            box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert annotation["bbox"] == box and annotation["bbox_mode"] == BoxMode.XYXY_ABS
            seen[mask] = number
        thing_pixels = np.isin(np.where(ids >= 1000, ids // 1000, ids), things)
        assert (thing_pixels == (seen > 0)).all()
    assert crowds > 0


def test_panoptic_dicts_describe_the_panoptic_png(datasets_root):
    for entry in DatasetCatalog.get("mini_cityscapes_fine_panoptic_train"):
        png = np.asarray(Image.open(entry["pan_seg_file_name"])).astype(int)
        segment_ids = png @ np.array([1, 256, 256**2])
        train_ids = np.asarray(Image.open(entry["sem_seg_file_name"]))
        assert segment_ids.shape == (entry["height"], entry["width"])
        for segment in entry["segments_info"]:
            mask = segment_ids == segment["id"]
            assert mask.sum() == segment["area"] > 0
            assert np.unique(train_ids[mask]).tolist() == [segment["category_id"]]
        described = np.isin(segment_ids, [segment["id"] for segment in entry["segments_info"]])
        assert (described == (train_ids != 255)).all()


def test_missing_directory_is_named_with_what_to_do(tmp_path, default_root):
    register_all_cityscapes(str(tmp_path / "nowhere"))
    for task in ("sem_seg", "instance_seg", "panoptic"):
        with pytest.raises(FileNotFoundError) as error:
            DatasetCatalog.get(f"cityscapes_fine_{task}_train")
        message = str(error.value)
        assert f"{tmp_path}/nowhere/cityscapes/leftImg8bit/train" in message
        assert "DETECTRON2_DATASETS" in message and "prepare_cityscapes.py" in message
        assert "\n" not in message


def test_directory_without_pictures_is_named(own_datasets_root):
    for picture in (own_datasets_root / "mini_cityscapes/leftImg8bit/val").glob("*/*.png"):
        picture.unlink()
    with pytest.raises(FileNotFoundError, match=r"leftImg8bit/val.*no CITY/\*_leftImg8bit.png"):
        DatasetCatalog.get("mini_cityscapes_fine_sem_seg_val")


def test_pictures_without_labels_are_counted(own_datasets_root):
    labels_of_two = sorted((own_datasets_root / "mini_cityscapes/gtFine/train").glob("*/*.png"))
    stems = sorted({path.name.split("_gtFine")[0] for path in labels_of_two})[:2]
    for stem in stems:
        for path in (own_datasets_root / "mini_cityscapes/gtFine/train").glob(f"*/{stem}*"):
            path.unlink()
    for task in ("sem_seg", "instance_seg"):
        with pytest.raises(FileNotFoundError) as error:
            DatasetCatalog.get(f"mini_cityscapes_fine_{task}_train")
        message = str(error.value)
        assert "2 of 6 images" in message and f"{stems[0]}_leftImg8bit.png" in message
        assert "gtFine_trainvaltest.zip" in message


def test_unprepared_labels_name_the_script(own_datasets_root):
    for path in (own_datasets_root / "mini_cityscapes/gtFine/val").glob("*/*labelTrainIds.png"):
        path.unlink()
    for task in ("sem_seg", "panoptic"):
        with pytest.raises(FileNotFoundError) as error:
            DatasetCatalog.get(f"mini_cityscapes_fine_{task}_val")
        message = str(error.value)
        assert "3 of 3 images" in message
        command = f"datasets/prepare_cityscapes.py {own_datasets_root}/mini_cityscapes"
        assert message.endswith(command)


def test_panoptic_json_that_is_missing_cut_off_or_of_other_pictures(own_datasets_root):
    root = own_datasets_root / "mini_cityscapes"
    path = root / "gtFine/cityscapes_panoptic_val.json"
    content = json.loads(path.read_text())
    content["annotations"].pop()
    path.write_text(json.dumps(content))
    with pytest.raises(FileNotFoundError, match=r"1 of 3 images .*delete this file and run"):
        DatasetCatalog.get("mini_cityscapes_fine_panoptic_val")
    for text, words in (
        (path.read_text()[:100], "not whole"),
        ('{"images": []}', "no annotations in it; delete it and run"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=rf"cityscapes_panoptic_val.json: {words}"):
            DatasetCatalog.get("mini_cityscapes_fine_panoptic_val")
    path.unlink()
    with pytest.raises(FileNotFoundError, match=rf"prepare_cityscapes.py {root}$"):
        DatasetCatalog.get("mini_cityscapes_fine_panoptic_val")


def test_panoptic_files_of_other_classes_or_that_are_missing(own_datasets_root):
    root = own_datasets_root / "mini_cityscapes"
    png = sorted((root / "gtFine/cityscapes_panoptic_val").glob("*.png"))[1]
    png.unlink()
    with pytest.raises(FileNotFoundError, match=rf"1 of 3 files .*{png.name}\); run python"):
        DatasetCatalog.get("mini_cityscapes_fine_panoptic_val")
    path = root / "gtFine/cityscapes_panoptic_val.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["segments_info"][0]["category_id"] = 4
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"val.json: a segment of .* has category_id=4, which"):
        DatasetCatalog.get("mini_cityscapes_fine_panoptic_val")


def test_broken_files_are_named_while_listing(own_datasets_root):
    root = own_datasets_root / "mini_cityscapes"
    ids = sorted((root / "gtFine/val").glob("*/*instanceIds.png"))[1]
    ids.write_bytes(ids.read_bytes()[:200])
    with pytest.raises(ValueError, match=rf"{ids.name}: not a whole picture"):
        DatasetCatalog.get("mini_cityscapes_fine_instance_seg_val")
    image = sorted((root / "leftImg8bit/val").glob("*/*.png"))[1]
    image.write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=rf"{image.name}: not a whole picture"):
        DatasetCatalog.get("mini_cityscapes_fine_sem_seg_val")


def _label_file(entry: dict, suffix: str) -> str:
    path = entry["file_name"].replace("leftImg8bit/", "gtFine/")
    return path.replace("_leftImg8bit.png", f"_gtFine_{suffix}.png")
