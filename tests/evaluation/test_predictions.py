"""Saved predictions are judged to the numbers of the run that saved them, and others can read them.

What is wrong with them is in test_predictions_of_others.py.
"""

import json
from pathlib import Path

import numpy as np
import pycocotools.mask
import pytest
import torch
from cityscapesscripts.evaluation import evalInstanceLevelSemanticLabeling as instance_script
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as pixel_script
from cityscapesscripts.helpers.labels import trainId2label
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances
from panopticapi.evaluation import pq_compute
from perfect import instances, semantic
from PIL import Image
from pycocotools.coco import COCO
from saved_predictions import config, judge, save

from mask2former.evaluation.predictions import PredictionReader, PredictionWriter, find_folder
from mask2former.evaluation.predictions.folder import folder_of
from mask2former.evaluation.predictions.label_maps import png_names
from mask2former.layers.packed_masks import PackedMasks
from mask2former.modeling.inference import tight_boxes

ALL = "sem_seg", "instances", "panoptic_seg"
OUTPUTS = {
    "mini_cityscapes_fine_sem_seg_val": ("sem_seg",),
    "mini_cityscapes_fine_instance_seg_val": ("instances",),
    "mini_cityscapes_fine_panoptic_val": ALL,
    "coco_2017_val": ("instances",),
    "coco_2017_val_panoptic": ALL,  # has no label maps, and ids with gaps
    "ade20k_full_sem_seg_val": ("sem_seg",),  # 847 classes
    "mapillary_vistas_panoptic_val": ALL,  # has no JSON of instances, and ids that are text
}
CITYSCAPES, COCO_PANOPTIC = "mini_cityscapes_fine_panoptic_val", "coco_2017_val_panoptic"


@pytest.mark.parametrize("name", OUTPUTS)
def test_saved_predictions_have_the_numbers_of_the_run(minis, tmp_path, name):
    cfg = config(name, *OUTPUTS[name])
    results = save(cfg, tmp_path)
    main = {task: next(iter(metrics.values())) for task, metrics in results.items()}
    assert all(1 < value < 99 for value in main.values()), main
    for folder in (tmp_path, tmp_path / "predictions", tmp_path / "predictions" / name):
        again = judge(cfg, folder)
        assert again.keys() == results.keys()
        for task in results:  # NaN is equal to itself here
            np.testing.assert_equal(again[task], results[task])


def first_of(minis, folder, name):
    save(config(name, *OUTPUTS[name]), folder)
    return DatasetCatalog.get(name)[0], folder_of(name, folder / "predictions")


def test_coco_can_load_the_instances(minis, tmp_path):
    sample, folder = first_of(minis, tmp_path, COCO_PANOPTIC)
    truth = COCO(MetadataCatalog.get("coco_2017_val").json_file)
    loaded = truth.loadRes(str(folder / "coco_instances_results.json"))
    expected = instances(sample, MetadataCatalog.get(COCO_PANOPTIC))
    expected.pred_masks = expected.pred_masks.roll(3, -1)
    found = loaded.loadAnns(loaded.getAnnIds(sample["image_id"]))
    assert len(found) == len(expected) > 1
    category_of = {
        c: i
        for i, c in MetadataCatalog.get(COCO_PANOPTIC).thing_dataset_id_to_contiguous_id.items()
    }
    for number, one in enumerate(found):
        assert one["category_id"] == category_of[expected.pred_classes[number].item()]
        assert one["score"] == expected.scores[number].item()
        mask = pycocotools.mask.decode(one["segmentation"])
        np.testing.assert_array_equal(mask, expected.pred_masks[number])
        left, top, right, bottom = expected.pred_boxes.tensor[number].tolist()
        assert one["bbox"] == [left + 3, top, right - left, bottom - top]


def test_panopticapi_can_read_the_segments(minis, tmp_path):
    cfg = config(COCO_PANOPTIC, "panoptic_seg")
    results = save(cfg, tmp_path)["panoptic_seg"]
    metadata = MetadataCatalog.get(COCO_PANOPTIC)
    folder = folder_of(COCO_PANOPTIC, tmp_path / "predictions")
    assert [path.name for path in sorted(folder.iterdir())] == ["panoptic", "panoptic.json"]
    scores = pq_compute(
        metadata.panoptic_json, str(folder / "panoptic.json"), metadata.panoptic_root
    )
    assert 100 * scores["All"]["pq"] == pytest.approx(results["PQ"], abs=1e-9)
    names = {
        entry["file_name"]
        for entry in json.loads((folder / "panoptic.json").read_text())["annotations"]
    }
    assert names == {f"{s['image_id']}.png" for s in DatasetCatalog.get(COCO_PANOPTIC)}


@pytest.mark.parametrize(
    "name, bits", [("ade20k_full_sem_seg_val", 16), ("mapillary_vistas_sem_seg_val", 8)]
)
def test_label_maps_hold_contiguous_classes(minis, tmp_path, name, bits):
    save(config(name, "sem_seg"), tmp_path)
    folder = folder_of(name, tmp_path / "predictions") / "sem_seg"
    metadata = MetadataCatalog.get(name)
    for sample in DatasetCatalog.get(name):
        with Image.open(folder / f"{Path(sample['file_name']).stem}.png") as image:
            assert {"L": 8, "I;16": 16}[image.mode] == bits
            found = np.asarray(image)
        expected = semantic(sample, metadata).roll(3, -1).argmax(0)
        np.testing.assert_array_equal(found, expected)


def test_cityscapesscripts_find_what_was_predicted(minis, tmp_path):
    sample, folder = first_of(minis, tmp_path, CITYSCAPES)
    gt_file = sample["sem_seg_file_name"].replace("labelTrainIds", "labelIds")
    args = pixel_script.CArgs()
    args.predictionPath, args.predictionWalk = str(folder / "cityscapes_sem_seg"), None
    train_ids = semantic(sample, MetadataCatalog.get(CITYSCAPES)).roll(3, -1).argmax(0).numpy()
    label_ids = np.asarray(Image.open(pixel_script.getPrediction(args, gt_file)))
    for train_id in np.unique(train_ids).tolist():
        assert set(label_ids[train_ids == train_id]) == {trainId2label[train_id].id}

    args = instance_script.CArgs()
    args.predictionPath, args.predictionWalk = str(folder / "cityscapes_instances"), None
    listed = instance_script.readPredInfo(instance_script.getPrediction(gt_file, args), args)
    expected = instances(sample, MetadataCatalog.get(CITYSCAPES))
    expected.pred_masks = expected.pred_masks.roll(3, -1)
    assert len(listed) == len(expected) > 1
    for (path, info), i in zip(listed.items(), range(len(expected))):
        assert info == {
            "labelID": trainId2label[expected.pred_classes[i].item()].id,
            "conf": expected.scores[i].item(),
        }
        mask = np.asarray(Image.open(path).convert("L")) != 0
        np.testing.assert_array_equal(mask, expected.pred_masks[i])


def test_names_of_label_maps_are_those_of_no_other():
    """The pictures' own, and below the folder that they share."""

    def names(*files):
        return list(png_names(files).values())

    assert names("/a/b/1.jpg", "/a/b/2.jpg") == ["1.png", "2.png"]
    assert names("/a/b/1.jpg", "/a/c/1.jpg", "/a/2.jpg") == ["b/1.png", "c/1.png", "2.png"]
    assert names("a/1.jpg", "a/1.png", "a/2.png") == ["1.jpg.png", "1.png.png", "2.png.png"]
    assert names("a/1.jpg") == ["1.png"]


def test_each_dataset_has_a_folder_of_its_own():
    names = ["coco_2017_val", "semantic:a/b:c", "semantic:a_b:c", f"coco:{'x/' * 300}:y"]
    folders = [folder_of(name, "predictions").name for name in names]
    assert folders[0] == names[0] and len(set(folders)) == len(names)
    assert all(len(name) < 100 and "/" not in name and ":" not in name for name in folders)


def drawn_masks(size):
    """Of all kinds that are easily got wrong."""
    height, width = size
    rng = np.random.default_rng(0)
    masks = np.zeros((9, height, width), bool)
    masks[1] = True
    masks[2, 0, 0] = masks[3, -1, -1] = masks[4, 5, 7:9] = True
    masks[5, :, 3] = masks[6, 4] = masks[7, :, -1] = True
    masks[8] = rng.random(size) < 0.5
    return torch.from_numpy(masks)


@pytest.mark.parametrize("name", [CITYSCAPES, "coco_2017_val"])
@pytest.mark.parametrize("width", [128, 131, 136])
def test_a_reader_returns_what_was_written(minis, tmp_path, name, width):
    size = 57, width
    city = "hazelton_000000_000019_leftImg8bit.png"
    sample = {"file_name": city, "image_id": 7, "height": size[0], "width": width}
    masks = drawn_masks(size)
    written = Instances(
        size,
        pred_masks=masks,
        pred_boxes=Boxes(tight_boxes(masks)),
        scores=torch.rand(len(masks), generator=torch.Generator().manual_seed(0)),
        pred_classes=torch.arange(len(masks)) % 8 + 11 * (name == CITYSCAPES),
    )
    for packed in (False, True):
        folder = tmp_path / str(packed)
        writer = PredictionWriter(name, ["instances"], folder)
        writer.reset()
        instances = written[torch.arange(len(masks))]
        if packed:
            instances.pred_masks = PackedMasks.pack(masks)
        writer.process([sample], [{"instances": instances}])
        writer.evaluate()
        place = find_folder(folder, name, is_only=True)
        (found,) = PredictionReader(name, [sample], place, ["instances"])([sample])
        found = found["instances"]
        assert found.image_size == size
        assert torch.equal(found.pred_masks.tensor, masks)
        assert torch.equal(found.pred_boxes.tensor, written.pred_boxes.tensor)
        assert torch.equal(found.scores, written.scores.double())
        assert torch.equal(found.pred_classes, written.pred_classes)


# ------------------------------------------------------------------ what is there at which moment
def test_a_folder_is_whole_or_not_there(minis, tmp_path):
    cfg = config("coco_2017_val", "instances")
    with pytest.raises(IndexError):
        save(cfg, tmp_path, numbers=(0, 1000))  # ends in the middle
    assert [path.name[0] for path in (tmp_path / "predictions").iterdir()] == ["."]

    results = save(cfg, tmp_path)
    (folder,) = (tmp_path / "predictions").iterdir()  # what had been left is gone
    assert [path.name for path in folder.iterdir()] == ["coco_instances_results.json"]
    with pytest.raises(IndexError):
        save(cfg, tmp_path, numbers=(0, 1000), shift=20)
    assert judge(cfg, tmp_path) == results  # of the run that came to its end


def test_a_later_evaluation_leaves_nothing_of_an_earlier_one(minis, tmp_path, caplog):
    name = "mapillary_vistas_panoptic_val"
    save(config(name, *ALL), tmp_path)
    results = save(config(name, "panoptic_seg", "sem_seg"), tmp_path, shift=5)
    assert judge(config(name), tmp_path).keys() == {"panoptic_seg", "sem_seg"}
    assert judge(config(name), tmp_path)["panoptic_seg"]["PQ"] == results["panoptic_seg"]["PQ"]
    assert [path.name for path in (tmp_path / "predictions").iterdir()] == [name]


def test_nothing_is_saved_by_default(minis, tmp_path):
    for name in ("coco_2017_val_panoptic", CITYSCAPES):
        cfg = config(name, *ALL)
        cfg.TEST.SAVE_PREDICTIONS = False
        save(cfg, tmp_path / "inference")
    assert not list(tmp_path.iterdir())
