"""Which numbers each dataset gives, and that the ground truth as prediction gets all of them."""

import logging
import re
import threading

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from perfect import PREDICT, config, evaluate

import mask2former
from mask2former.data.datasets.catalog import register
from mask2former.evaluation import build_evaluator

ALL = tuple(PREDICT)


def register_changed(original, samples=None, without=(), **changes):
    """The dataset "changed": another one's samples and metadata, with changes."""
    metadata = {**MetadataCatalog.get(original).as_dict(), **changes}
    metadata = {k: v for k, v in metadata.items() if k not in ("name", *without)}
    samples = DatasetCatalog.get(original) if samples is None else samples
    register("changed", lambda: samples, **metadata)


@pytest.fixture(autouse=True)
def _forget_changes():
    yield
    for catalog in (DatasetCatalog, MetadataCatalog):
        if "changed" in catalog:
            catalog.remove("changed")


QUALITY = {"panoptic_seg": ("PQ", "SQ", "RQ", "PQ_th", "PQ_st")}
COCO_AP = {"segm": ("AP", "AP50"), "bbox": ("AP", "AP50")}
CITYSCAPES_AP = {"segm": ("AP", "AP50")}
MEAN_IOU = {"sem_seg": ("mIoU", "fwIoU", "mACC", "pACC")}
CITYSCAPES_IOU = {"sem_seg": ("IoU", "IoU_sup")}

# dataset -> task -> metrics that are 100 where the prediction is the ground truth
EXPECTED = {
    "mini_cityscapes_fine_sem_seg_val": CITYSCAPES_IOU | {"sem_seg_pixel": MEAN_IOU["sem_seg"]},
    "mini_cityscapes_fine_instance_seg_val": CITYSCAPES_AP,
    "mini_cityscapes_fine_panoptic_val": QUALITY | CITYSCAPES_AP | CITYSCAPES_IOU,
    "coco_2017_val": COCO_AP,
    "coco_2017_val_panoptic": QUALITY | COCO_AP | MEAN_IOU,  # has no label maps
    "coco_2017_val_panoptic_with_sem_seg": QUALITY | COCO_AP | MEAN_IOU,
    "coco_2017_test_stuff_10k_sem_seg": MEAN_IOU,
    "ade20k_sem_seg_val": MEAN_IOU,
    "ade20k_full_sem_seg_val": MEAN_IOU,  # ignores 65535
    "ade20k_instance_val": COCO_AP,
    "ade20k_panoptic_val": QUALITY | COCO_AP | MEAN_IOU,
    "mapillary_vistas_sem_seg_val": MEAN_IOU,  # ignores 65
    "mapillary_vistas_panoptic_val": QUALITY | COCO_AP | MEAN_IOU,  # has no JSON of instances
}
OUTPUT_OF = {"panoptic_seg": "panoptic_seg", "segm": "instances", "bbox": "instances"}


def outputs_of(expected):
    return {OUTPUT_OF.get(task, "sem_seg") for task in expected}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_ground_truth_scores_100(minis, tmp_path, name):
    evaluator = build_evaluator(config(*ALL), name, str(tmp_path / "inference"))
    assert not (tmp_path / "inference").exists()  # before there is something to write
    results = evaluate(evaluator, name, outputs_of(EXPECTED[name]))
    assert results.keys() == EXPECTED[name].keys()
    for task, metrics in EXPECTED[name].items():
        for metric in metrics:
            assert results[task][metric] == pytest.approx(100, abs=1e-6), (task, metric)


@pytest.mark.parametrize(
    "outputs, tasks",
    [
        (("panoptic_seg",), {"panoptic_seg"}),
        (("sem_seg",), {"sem_seg"}),
        (("instances",), {"bbox", "segm"}),
        (("panoptic_seg", "instances"), {"panoptic_seg", "bbox", "segm"}),
    ],
)
def test_what_is_switched_on_is_measured(minis, tmp_path, outputs, tasks):
    name = "ade20k_panoptic_val"
    evaluator = build_evaluator(config(*outputs), name, str(tmp_path))
    assert evaluate(evaluator, name, outputs).keys() == tasks


def test_boundaries_are_measured_if_asked_for(minis, tmp_path):
    cfg = config("instances")
    cfg.MODEL.MASK_FORMER.TEST.BOUNDARY_AP = True
    evaluator = build_evaluator(cfg, "coco_2017_val", str(tmp_path))
    results = evaluate(evaluator, "coco_2017_val", ["instances"])
    assert results.keys() == {"bbox", "segm", "boundary"}
    assert results["boundary"]["AP"] == pytest.approx(100)


def test_per_pixel_models_have_semantic_output_only(minis, tmp_path):
    cfg = config("panoptic_seg", "instances")
    cfg.MODEL.META_ARCHITECTURE = "SemanticSegmentor"
    for name in ("ade20k_sem_seg_val", "ade20k_panoptic_val"):
        evaluator = build_evaluator(cfg, name, str(tmp_path))
        assert evaluate(evaluator, name, ["sem_seg"])["sem_seg"]["mIoU"] == 100


def messages_of(caplog, *names):
    with caplog.at_level(logging.INFO, "mask2former.evaluation"):
        logging.getLogger("mask2former").propagate = True
        for name in names:
            build_evaluator(config(*ALL), name, "")
    messages = [r.getMessage() for r in caplog.records if r.name == "mask2former.evaluation.build"]
    judged = [message for message in messages if " is judged by " in message]
    return [message for message in messages if message not in judged], judged


def test_what_is_measured_on_segments_is_said(minis, caplog):
    samples = [
        {**s, "sem_seg_file_name": s["sem_seg_file_name"] + "?"}
        for s in DatasetCatalog.get("ade20k_panoptic_val")
    ]
    register_changed("ade20k_panoptic_val", samples, json_file="nowhere.json")
    others = "mapillary_vistas_panoptic_val", "coco_2017_val_panoptic", "ade20k_panoptic_val"
    messages, judged = messages_of(caplog, "changed", *others)
    ap = judged[0].removeprefix("changed is judged by our own evaluators: PQ, mIoU; ")
    assert re.fullmatch(r"(hotcoco|pycocotools) [0-9.]+: AP", ap)
    assert judged[1:] == [f"{n} is judged by our own evaluators: PQ, mIoU; {ap}" for n in others]
    measured = [m.partition(" is measured on the panoptic segments (")[0] for m in messages]
    assert measured == ["AP", "mIoU", "AP", "mIoU"]
    assert "nowhere.json: not there, but changed names it as json_file" in messages[0]
    assert ".png?: not there" in messages[1]
    assert "mapillary_vistas_panoptic_val: its metadata have no json_file" in messages[2]
    assert "coco_2017_val_panoptic: its dicts have no sem_seg_file_name" in messages[3]


def test_what_is_left_out_is_said(minis, caplog):
    kept = ("file_name", "image_id")
    samples = DatasetCatalog.get("coco_2017_val_panoptic")
    samples = [{key: sample[key] for key in kept} for sample in samples]
    register_changed("coco_2017_val_panoptic", samples, json_file="nowhere.json")
    messages, judged = messages_of(caplog, "changed")
    assert judged == ["changed is judged by our own evaluators: PQ"]
    assert [m.split(":")[0] for m in messages] == ["No AP", "No mIoU"]
    assert all("its dicts have no pan_seg_file_name" in m for m in messages)


def test_an_unmeasurable_output_is_one_sentence(minis):
    with pytest.raises(ValueError, match=r"ade20k_sem_seg_val: .*TEST\.SEMANTIC_ON, or"):
        build_evaluator(config("panoptic_seg"), "ade20k_sem_seg_val", "")
    with pytest.raises(ValueError, match=r"coco_2017_val: .*set one of .*INSTANCE_ON"):
        build_evaluator(config("sem_seg"), "coco_2017_val", "")


MISSING = [
    ("coco_2017_val_panoptic", "panoptic_json", "panoptic_seg", FileNotFoundError),
    ("coco_2017_val_panoptic", "panoptic_root", "panoptic_seg", FileNotFoundError),
    ("coco_2017_val", "json_file", "instances", FileNotFoundError),
    ("mini_cityscapes_fine_sem_seg_val", "gt_dir", "sem_seg", FileNotFoundError),
    ("mini_cityscapes_fine_instance_seg_val", "gt_dir", "instances", FileNotFoundError),
    ("coco_2017_val_panoptic", "stuff_dataset_id_to_contiguous_id", "panoptic_seg", ValueError),
    ("ade20k_sem_seg_val", "ignore_label", "sem_seg", ValueError),
    ("mini_cityscapes_fine_panoptic_val", "thing_classes", "instances", ValueError),
]


@pytest.mark.parametrize("name, key, output, error", MISSING)
def test_missing_ground_truth_is_said_before_training(minis, tmp_path, name, key, output, error):
    if error is ValueError:
        register_changed(name, without=[key])
        sentence = f"changed: its metadata have no {key}"
    else:
        register_changed(name, **{key: str(tmp_path / "nowhere")})
        sentence = "nowhere: .*changed"
    with pytest.raises(error, match=sentence) as caught:
        build_evaluator(config(output), "changed", str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_semantic_dataset_without_label_maps(minis):
    register(
        "changed",
        lambda: [{"file_name": "a.jpg"}],
        evaluator_type="sem_seg",
        stuff_classes=["a", "b"],
        ignore_label=255,
    )
    with pytest.raises(ValueError, match="changed: its dicts have no sem_seg_file_name"):
        build_evaluator(config("sem_seg"), "changed", "")


def test_classes_without_a_dataset_id_are_measured_and_not_written(minis, tmp_path):
    """Cityscapes' panoptic metadata know ids of stuff only, and the label maps have things."""
    register_changed("mini_cityscapes_fine_panoptic_val", evaluator_type="coco_panoptic_seg")
    evaluator = build_evaluator(config("sem_seg"), "changed", str(tmp_path))
    assert evaluate(evaluator, "changed", ["sem_seg"])["sem_seg"]["mIoU"] == 100
    assert not (tmp_path / "sem_seg_predictions.json").exists()


def test_pictures_of_one_name_in_two_folders(minis, tmp_path):
    name = "coco_2017_val_panoptic"
    samples = [
        {**s, "file_name": f"folder{i}/1.jpg"} for i, s in enumerate(DatasetCatalog.get(name))
    ]
    register_changed(name, samples)
    evaluator = build_evaluator(config("panoptic_seg"), "changed", str(tmp_path))
    assert evaluate(evaluator, "changed", ["panoptic_seg"])["panoptic_seg"]["PQ"] == 100


def test_official_names():
    assert issubclass(mask2former.InstanceSegEvaluator, mask2former.evaluation.InstanceSegEvaluator)


@pytest.mark.parametrize("name", EXPECTED)
def test_no_thread_outlives_an_evaluation(minis, tmp_path, name):
    before = set(threading.enumerate())
    evaluator = build_evaluator(config(*ALL), name, str(tmp_path))
    assert set(threading.enumerate()) == before  # to check the test sets starts none
    evaluate(evaluator, name, outputs_of(EXPECTED[name]), numbers=[2, 1, 0])  # 1 is ahead
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=20)
        assert not thread.is_alive()
