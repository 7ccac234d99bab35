"""Our evaluators and the reference tools give the same numbers under the same names."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Instances
from perfect import PREDICT, config, evaluate
from PIL import Image

from mask2former.evaluation import build_evaluator
from mask2former.evaluation.cityscapes_instances import (
    CityscapesInstanceEvaluator as FastInstanceEvaluator,
)
from mask2former.evaluation.reference import (
    CityscapesInstanceEvaluator,
    CityscapesSemSegEvaluator,
)

# One of each evaluator_type, and of what is measured on segments
DATASETS = {
    "ade20k_sem_seg_val": "sem_seg",
    "ade20k_full_sem_seg_val": "sem_seg",  # ignores 65535
    "coco_2017_val": "bbox segm",
    "mini_cityscapes_fine_sem_seg_val": "sem_seg sem_seg_pixel",
    "mini_cityscapes_fine_instance_seg_val": "segm",
    "mini_cityscapes_fine_panoptic_val": "panoptic_seg segm sem_seg",
    "coco_2017_val_panoptic": "panoptic_seg bbox segm sem_seg",
    "ade20k_panoptic_val": "panoptic_seg bbox segm sem_seg",
    "mapillary_vistas_panoptic_val": "panoptic_seg bbox segm sem_seg",
}
OUTPUT_OF = {"panoptic_seg": "panoptic_seg", "segm": "instances", "bbox": "instances"}


@pytest.mark.parametrize("name", DATASETS)
def test_both_judge_alike(minis, tmp_path, name):
    tasks = DATASETS[name].split()
    outputs = {OUTPUT_OF.get(task, "sem_seg") for task in tasks}
    fast, reference = (
        evaluate(
            build_evaluator(config(*PREDICT, judge=judge), name, str(tmp_path / judge)),
            name,
            outputs,
            shift=3,
        )
        for judge in ("fast", "reference")
    )
    assert list(fast) == list(reference) == tasks
    for task in tasks:
        # detectron2's newest SemSegEvaluator measures boundaries too, ours the PQ of each category.
        expected = {
            key: value
            for key, value in reference[task].items()
            if not key.startswith(("BoundaryIoU", "min(IoU"))
        }
        found = {key: value for key, value in fast[task].items() if not key.startswith("PQ-")}
        assert list(found) == list(expected), task
        assert found == pytest.approx(expected, abs=1e-6, nan_ok=True), task
        assert 2 < next(iter(expected.values())) < 98


def test_the_log_says_who_judges(minis, tmp_path, caplog):
    logging.getLogger("mask2former").propagate = True
    with caplog.at_level(logging.INFO, "mask2former.evaluation"):
        name = "mini_cityscapes_fine_panoptic_val"
        build_evaluator(config(*PREDICT, judge="reference"), name, str(tmp_path))
    assert caplog.messages[-1] == f"{name} is judged by panopticapi: PQ; cityscapesscripts: AP, IoU"


# ------------------------------------------------------------------------------------- Cityscapes
SCRIPTS = {
    "mini_cityscapes_fine_sem_seg_val": (CityscapesSemSegEvaluator, "sem_seg"),
    "mini_cityscapes_fine_instance_seg_val": (CityscapesInstanceEvaluator, "instances"),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_files_lie_in_a_folder_that_goes(minis, name):
    kind, output = SCRIPTS[name]
    evaluator = kind(name)
    evaluator.reset()
    sample, metadata = DatasetCatalog.get(name)[0], MetadataCatalog.get(name)
    evaluator.process([sample], [{output: PREDICT[output](sample, metadata)}])
    folder = Path(evaluator._folder.name)
    assert any(path.is_file() for path in folder.rglob("*.png"))
    assert evaluator.evaluate() and not folder.exists()


@pytest.mark.parametrize("name", SCRIPTS)
def test_without_images_nothing_is_known(minis, name):
    evaluator = SCRIPTS[name][0](name)
    evaluator.reset()
    with np.errstate(invalid="ignore"):  # the script divides 0 by 0
        (metrics,) = evaluator.evaluate().values()
    assert np.isnan(list(metrics.values())).all()


@pytest.fixture
def moved(minis, tmp_path):
    """Makes a copy of a dataset with ground truth of its own."""

    def make(name):
        metadata = {**MetadataCatalog.get(name).as_dict(), "name": "moved", "gt_dir": str(tmp_path)}
        MetadataCatalog.get("moved").set(**metadata)
        sample = DatasetCatalog.get(name)[0]
        folder, image = Path(sample["file_name"]).parts[-2:]
        (tmp_path / folder).mkdir()
        stem = image.removesuffix("leftImg8bit.png") + "gtFine_"
        return sample, tmp_path / folder / stem

    yield make
    MetadataCatalog.remove("moved")


def judged(evaluator, sample, value):
    evaluator.reset()
    evaluator.process([sample], [value])
    return evaluator.evaluate()


def test_mistakes_are_one_sentence(moved):
    sample, stem = moved("mini_cityscapes_fine_sem_seg_val")
    evaluator = CityscapesSemSegEvaluator("moved")
    prediction = {"sem_seg": torch.zeros(4, 6, dtype=torch.int64)}
    with pytest.raises(FileNotFoundError, match=r"_labelIds.png: no such file; unpack gtFine"):
        judged(evaluator, sample, prediction)
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(f"{stem}labelIds.png")
    with pytest.raises(ValueError, match=r"_labelIds.png: of .* \(4, 5\), but .* of \(4, 6\)"):
        judged(evaluator, sample, prediction)
    for kind, dtype in (("labelIds", np.uint8), ("instanceIds", np.uint16)):
        Image.fromarray(np.full((4, 6), 200, dtype)).save(f"{stem}{kind}.png")
    with pytest.raises(ValueError, match="ended with 'ERROR: Unknown label with id 200'"):
        judged(evaluator, sample, prediction)


def test_where_the_script_fails_is_one_sentence(moved):
    """A car that is missed, and another one predicted where nothing is evaluated."""
    sample, stem = moved("mini_cityscapes_fine_instance_seg_val")
    ids = np.zeros((20, 40), np.uint16)
    ids[:, :20] = 26001
    Image.fromarray(ids).save(f"{stem}instanceIds.png")
    metadata = MetadataCatalog.get("moved")
    car = Instances((20, 40), scores=torch.ones(1), pred_masks=torch.from_numpy(ids == 0)[None])
    car.pred_classes = torch.tensor([metadata.thing_classes.index("car")])
    with pytest.raises(ValueError, match="none of the predictions of a class counts"):
        judged(CityscapesInstanceEvaluator("moved"), sample, {"instances": car})
    fast = judged(FastInstanceEvaluator("moved"), sample, {"instances": car})["segm"]
    assert fast["AP-car"] == fast["AP"] == 0 and np.isnan(fast["AP-bus"])
