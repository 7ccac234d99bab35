"""AP and mIoU of panoptic datasets, measured on their segments; and AP on a dataset's dicts."""

import copy
import json

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances
from drawn_shapes import SIZE, write_coco, write_panoptic
from perfect import PREDICT, box, decode, evaluate, move, read
from PIL import Image

from mask2former.config import load_config
from mask2former.data.datasets.catalog import register
from mask2former.data.own import register_own_datasets
from mask2former.evaluation import build_evaluator
from mask2former.evaluation.panoptic_truth import objects_of_things, read_class_map
from mask2former.evaluation.segment_ids import read_segment_ids

OUTPUTS = {"panoptic_seg": "PANOPTIC_ON", "instances": "INSTANCE_ON", "sem_seg": "SEMANTIC_ON"}


def build(name, folder=""):
    options = [(f"MODEL.MASK_FORMER.TEST.{key}", "True") for key in OUTPUTS.values()]
    cfg = load_config("quick_start_panoptic.yaml", [word for option in options for word in option])
    return build_evaluator(cfg, name, str(folder))


def change(path, edit):
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def test_own_segments_score_100(tmp_path):
    name = write_panoptic(tmp_path / "own", count=3)
    register_own_datasets([name])
    results = evaluate(build(name, tmp_path / "inference"), name, OUTPUTS)
    assert results.keys() == {"panoptic_seg", "bbox", "segm", "sem_seg"}
    for task, score in (
        ("panoptic_seg", "PQ"),
        ("bbox", "AP"),
        ("segm", "AP"),
        ("sem_seg", "mIoU"),
    ):
        assert results[task][score] == pytest.approx(100), task
    assert "AP-disk" in results["segm"] and "AP-floor" not in results["segm"]


def test_without_things_there_is_no_ap(tmp_path):
    def all_stuff(content):
        for category in content["categories"]:
            category["isthing"] = 0

    name = write_panoptic(tmp_path, count=1)
    change(tmp_path / "shapes.json", all_stuff)
    register_own_datasets([name])
    results = evaluate(build(name, tmp_path / "inference"), name, OUTPUTS)
    assert results.keys() == {"panoptic_seg", "sem_seg"}
    assert results["panoptic_seg"]["PQ"] == results["sem_seg"]["mIoU"] == pytest.approx(100)


# Each has label maps, the first two also a JSON of instances.
@pytest.mark.parametrize(
    "name",
    [
        "coco_2017_val_panoptic_with_sem_seg",
        "ade20k_panoptic_val",
        "mapillary_vistas_panoptic_val",
        "mini_cityscapes_fine_panoptic_val",
    ],
)
def test_segments_give_the_numbers_of_the_other_files(minis, tmp_path, name):
    metadata = {**MetadataCatalog.get(name).as_dict(), "evaluator_type": "coco_panoptic_seg"}
    del metadata["name"]
    samples = DatasetCatalog.get(name)
    bare = [{k: v for k, v in s.items() if k != "sem_seg_file_name"} for s in samples]
    register("with all files", lambda: samples, **metadata)
    register("with segments only", lambda: bare, **{**metadata, "json_file": None})
    evaluators = [build(f"with {what}", tmp_path / what) for what in ("all files", "segments only")]
    for evaluator in evaluators:
        evaluator.reset()
    for sample in samples:
        height, width = read(sample["file_name"]).shape[:2]
        sample = {**sample, "height": height, "width": width}
        output = {o: PREDICT[o](sample, MetadataCatalog.get(name)) for o in OUTPUTS}
        move(output, 1)
        for evaluator in evaluators:
            evaluator.process([sample], [copy.deepcopy(output)])
    of_files, of_segments = (evaluator.evaluate() for evaluator in evaluators)
    assert of_files.keys() == of_segments.keys() == {"panoptic_seg", "bbox", "segm", "sem_seg"}
    for task, metrics in of_files.items():  # ADE20K's JSON has other names for the same classes
        found = list(of_segments[task].values())
        assert found == pytest.approx(list(metrics.values()), nan_ok=True), task
        assert 5 < found[0] < 95


def test_segments_of_cityscapes_are_its_instances(minis):
    metadata = MetadataCatalog.get("mini_cityscapes_fine_panoptic_val")
    ids = metadata.thing_dataset_id_to_contiguous_id.values()
    category_of = {contiguous: i for i, contiguous in enumerate(ids)}
    instances = DatasetCatalog.get("mini_cityscapes_fine_instance_seg_val")
    samples = DatasetCatalog.get("mini_cityscapes_fine_panoptic_val")
    for sample, other in zip(samples, instances):
        segment_ids = read_segment_ids(sample["pan_seg_file_name"])
        found, expected = (
            sorted(
                (a["category_id"], a["iscrowd"], a["segmentation"]["counts"]) for a in annotations
            )
            for annotations in (
                objects_of_things(segment_ids, sample["segments_info"], category_of),
                other["annotations"],
            )
        )
        assert found == expected and found


IDS = np.array([[1, 1, 2, 2, 70000], [1, 1, 2, 9, 70000]])
SEGMENTS = [
    {"id": 70000, "category_id": 3, "iscrowd": 1},
    {"id": 1, "category_id": 5},
    {"id": 2, "category_id": 0},  # stuff
    {"id": 4, "category_id": 5},  # is nowhere
]


def test_crowds_have_their_class_and_need_not_be_found(tmp_path):
    path = str(tmp_path / "ids.png")
    rgb = np.stack([IDS % 256, IDS // 256 % 256, IDS // 65536], -1).astype(np.uint8)
    Image.fromarray(rgb).save(path)
    labels = read_class_map(path, segments_of={path: SEGMENTS}, ignore_label=255)
    assert labels.tolist() == [[5, 5, 0, 0, 3], [5, 5, 0, 255, 3]]  # nobody lists the id 9
    assert (read_class_map(path, segments_of={path: []}, ignore_label=65) == 65).all()

    crowd, thing = objects_of_things(IDS, SEGMENTS, {3: 30, 5: 50})
    assert (crowd["category_id"], crowd["iscrowd"]) == (30, 1)
    assert crowd["bbox"] == [4, 0, 1, 2] and crowd["area"] == 2
    assert (thing["category_id"], thing["iscrowd"]) == (50, 0)
    assert thing["bbox"] == [0, 0, 2, 2] and thing["area"] == 4
    assert (mask_util.decode(thing["segmentation"]) == (IDS == 1)).all()


def test_segments_of_another_size_are_one_sentence(tmp_path):
    name = write_panoptic(tmp_path, count=1)
    register_own_datasets([name])
    evaluator = build(name, tmp_path / "inference")
    Image.new("RGB", (5, 5)).save(tmp_path / "pngs" / "0.png")
    evaluator.reset()
    nothing = Instances(SIZE, pred_masks=torch.zeros(0, *SIZE), pred_boxes=Boxes(torch.zeros(0, 4)))
    nothing.scores, nothing.pred_classes = torch.zeros(0), torch.zeros(0, dtype=torch.int64)
    output = {
        "instances": nothing,
        "panoptic_seg": (torch.zeros(SIZE, dtype=torch.int32), []),
        "sem_seg": torch.zeros(3, *SIZE),
    }
    with pytest.raises(ValueError, match=r"pngs/0\.png: its size is \(5, 5\).* \(48, 64\)"):
        evaluator.process(DatasetCatalog.get(name), [output])


def test_own_objects_without_boxes_and_areas(tmp_path):
    """They are judged by what the JSON holds now, and nothing is kept for the next time."""
    name = write_coco(tmp_path / "own", count=1)
    path = tmp_path / "own" / "shapes.json"
    annotations = json.loads(path.read_text())["annotations"]
    masks = [decode(annotation["segmentation"], SIZE) for annotation in annotations]
    lengths = [int(n) for n in np.diff(np.flatnonzero(np.diff(masks[0].T.ravel()) + 0), prepend=-1)]

    def omit(content):
        for annotation in content["annotations"]:
            del annotation["bbox"], annotation["area"], annotation["iscrowd"]
        rest = masks[0].size - sum(lengths)
        run_lengths = {"size": list(SIZE), "counts": [*lengths, rest]}
        content["annotations"][0]["segmentation"] = run_lengths

    def prolong(content):
        content["annotations"][1]["segmentation"] = [[0, 0, 0, 48, 64, 48]]

    result = Instances(SIZE, pred_masks=torch.from_numpy(np.array(masks)))
    result.pred_boxes = Boxes(torch.tensor([box(mask) for mask in masks]).float())
    result.scores, result.pred_classes = torch.ones(2), torch.tensor([0, 1])
    for edit, of_disk, of_box in ((omit, 100, 100), (prolong, 100, 0)):
        change(path, edit)
        register_own_datasets([name])
        evaluator = build(name, tmp_path / "inference")
        evaluator.reset()
        evaluator.process(DatasetCatalog.get(name), [{"instances": result}])
        results = evaluator.evaluate()["segm"]
        assert results["AP-disk"] == pytest.approx(of_disk)
        assert results["AP-box"] == pytest.approx(of_box)
    assert not (tmp_path / "inference").exists()
