"""COCOEvaluator and COCOPanopticEvaluator behave the same whichever detectron2 provides them.

Average precision is computed by hand. COCO reads precision at 101 recalls: 0, 0.01, .., 1.
"""

import json
import math

import coco_cases as cases
import numpy as np
import panoptic_cases
import pycocotools.mask as mask_util
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from coco_cases import found, rectangle, truth_of
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator, COCOPanopticEvaluator
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import BoxMode
from detectron2.utils import comm
from panopticapi.evaluation import pq_compute

NAMES = {10: "cat", 20: "dog"}  # category ids are not 0, 1, ..
BIG = rectangle(10, 10, 40, 40)  # 1600 pixels: medium
SMALL = rectangle(60, 60, 20, 20)  # 400 pixels: small


def evaluator_of(register, folder, annotations, categories=NAMES, num_images=2, **arguments):
    name = register(
        "coco_ap",
        [],
        json_file=cases.write_truth(folder / "truth.json", annotations, categories, num_images),
        thing_classes=list(categories.values()),
        thing_dataset_id_to_contiguous_id={c: i for i, c in enumerate(categories)},
    )
    return COCOEvaluator(name, use_fast_impl=False, **arguments)


def evaluate(evaluator, *predictions):
    """Image 1 has the first predictions, image 2 the second, ..; one image is a batch."""
    evaluator.reset()
    for image_id, instances in enumerate(predictions, 1):
        evaluator.process([{"image_id": image_id}], [{"instances": found(*instances)}])
    return evaluator.evaluate()


def percent(num_recalls):
    return 100 * num_recalls / 101


# truth of image 1, predictions for image 1, expected metrics of "segm"
KNOWN = {
    "all right": (
        [(10, BIG, 0), (20, SMALL, 0)],
        [(0, 0.9, BIG), (1, 0.8, SMALL)],
        {"AP": 100, "AP50": 100, "AP75": 100, "APs": 100, "APm": 100, "APl": math.nan},
    ),
    "one of two objects": (
        [(10, BIG, 0), (10, SMALL, 0)],
        [(0, 0.9, BIG)],
        # Recall 0.5: the first 51 of 101 recalls have precision 1, the others 0. No dogs: NaN.
        {"AP": percent(51), "AP50": percent(51), "APs": 0, "APm": 100, "AP-dog": math.nan},
    ),
    "a wrong one with a higher score": (
        [(10, BIG, 0)],
        [(0, 0.3, BIG), (0, 0.9, SMALL)],
        {"AP": 50, "AP-cat": 50},
    ),
    "a wrong one with a lower score": (
        [(10, BIG, 0)],
        [(0, 0.9, BIG), (0, 0.3, SMALL)],
        {"AP": 100},
    ),
    "a duplicate before the second object": (
        [(10, BIG, 0), (10, SMALL, 0)],
        [(0, 0.9, BIG), (0, 0.8, BIG), (0, 0.7, SMALL)],
        {"AP": percent(51 + 50 * 2 / 3)},  # precision 1 up to recall 0.5, then 2 of 3
    ),
    "another class": (
        [(10, BIG, 0)],
        [(1, 0.9, BIG)],
        {"AP": 0, "AP-cat": 0, "AP-dog": math.nan},
    ),
    "an IoU of 0.625": (
        [(10, BIG, 0)],
        [(0, 0.9, rectangle(10, 10, 25, 40))],
        {"AP": 30, "AP50": 100, "AP75": 0},  # at the thresholds 0.5, 0.55 and 0.6
    ),
    "crowds are not missed, and excuse what lies in them": (
        [(10, BIG, 0), (10, SMALL, 1)],
        [(0, 0.3, BIG), (0, 0.9, rectangle(60, 60, 10, 10)), (0, 0.8, rectangle(65, 65, 10, 10))],
        {"AP": 100, "APs": math.nan},
    ),
    "sizes are those of the masks": (
        [(10, BIG & ~rectangle(15, 15, 34, 34), 0)],  # 444 pixels in a box of 1600
        [(0, 0.9, BIG & ~rectangle(15, 15, 34, 34))],
        {"APs": 100, "APm": math.nan},
    ),
}


@pytest.mark.parametrize("case", KNOWN)
def test_average_precision_by_hand(register, tmp_path, case):
    truth, predictions, expected = KNOWN[case]
    annotations = [truth_of(1, c, mask, crowd) for c, mask, crowd in truth]
    results = evaluate(evaluator_of(register, tmp_path, annotations), predictions, [])
    assert list(results) == ["bbox", "segm"]
    metrics = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AP-cat", "AP-dog"]
    assert list(results["segm"]) == list(results["bbox"]) == metrics
    for name, value in expected.items():
        assert results["segm"][name] == pytest.approx(value, abs=1e-9, nan_ok=True), name


def test_boxes_are_measured_as_boxes(register, tmp_path):
    annotations = [truth_of(1, 10, BIG & ~rectangle(15, 15, 34, 34))]
    results = evaluate(evaluator_of(register, tmp_path, annotations), [(0, 0.9, BIG)], [])
    assert results["bbox"]["AP"] == pytest.approx(100) and results["segm"]["AP"] == 0


def test_an_image_without_a_prediction_has_its_objects_missed(register, tmp_path):
    annotations = [truth_of(i, 10, BIG) for i in (1, 2)]
    evaluator = evaluator_of(register, tmp_path, annotations, tasks=("segm",))
    assert evaluate(evaluator, [(0, 0.9, BIG)])["segm"]["AP"] == pytest.approx(percent(51))
    evaluator.reset()
    evaluator.process([{"image_id": 1}], [{"instances": found((0, 0.9, BIG))}])
    assert evaluator.evaluate(img_ids=[1])["segm"]["AP"] == pytest.approx(100)


@pytest.mark.parametrize("limit, expected", [(None, 100 / 12), (12, 100 / 12), (11, 0)])
def test_a_limit_of_detections(register, tmp_path, limit, expected):
    evaluator = evaluator_of(
        register, tmp_path, [truth_of(1, 10, BIG)], tasks=("segm",), max_dets_per_image=limit
    )
    wrong = [(0, 0.9, SMALL)] * 11
    assert evaluate(evaluator, [*wrong, (0, 0.1, BIG)])["segm"]["AP"] == pytest.approx(expected)


def test_one_class_has_no_table(register, tmp_path):
    evaluator = evaluator_of(register, tmp_path, [truth_of(1, 10, BIG)], {10: "cat"})
    results = evaluate(evaluator, [(0, 0.5, BIG)])
    assert list(results["segm"]) == ["AP", "AP50", "AP75", "APs", "APm", "APl"]


def test_nothing_found_is_no_number(register, tmp_path):
    evaluator = evaluator_of(register, tmp_path, [truth_of(1, 10, BIG)], tasks=("segm",))
    results = evaluate(evaluator, [], [])
    assert list(results) == ["segm"] and all(map(math.isnan, results["segm"].values()))
    assert evaluate(evaluator) == {}  # no image at all


def test_files_are_written(register, tmp_path):
    output = tmp_path / "output"
    annotations = [truth_of(1, 10, BIG)]
    evaluator = evaluator_of(register, tmp_path, annotations, output_dir=str(output))
    evaluate(evaluator, [(0, 0.5, BIG)], [(1, 0.25, SMALL)])
    first, second = json.loads((output / "coco_instances_results.json").read_text())
    assert (first["image_id"], first["category_id"], first["score"]) == (1, 10, 0.5)
    assert second["bbox"] == [60, 60, 20, 20] and second["category_id"] == 20
    assert (mask_util.decode(second["segmentation"]) > 0).tolist() == SMALL.tolist()
    stored = torch.load(output / "instances_predictions.pth", weights_only=False)
    assert [len(image["instances"]) for image in stored] == [1, 1]


def test_a_test_set_has_no_annotations(register, tmp_path):
    output = tmp_path / "output"
    evaluator = evaluator_of(register, tmp_path, None, output_dir=str(output))
    assert evaluate(evaluator, [(0, 0.5, BIG)]) == {}
    (result,) = json.loads((output / "coco_instances_results.json").read_text())
    assert result["category_id"] == 10


def test_a_dataset_of_dicts_is_converted(register, tmp_path):
    x, y, width, height = cases.box_of(BIG)
    sample = {
        "file_name": "1.jpg",
        "image_id": 1,
        "height": cases.SIZE[0],
        "width": cases.SIZE[1],
        "annotations": [
            {
                "bbox": [x, y, width, height],
                "bbox_mode": BoxMode.XYWH_ABS,
                "category_id": 1,
                "segmentation": [[x, y, x + width, y, x + width, y + height, x, y + height]],
            }
        ],
    }
    name = register("coco_of_dicts", [sample], thing_classes=["cat", "dog"])
    with pytest.raises(ValueError, match="output_dir"):
        COCOEvaluator(name)
    output = tmp_path / "output"
    evaluator = COCOEvaluator(name, output_dir=str(output), use_fast_impl=False)
    assert evaluate(evaluator, [(1, 0.9, BIG)])["segm"]["AP-dog"] == pytest.approx(100)
    assert (output / f"{name}_coco_format.json").is_file()


def test_instances_as_json():
    assert instances_to_coco_json(found(), 7) == []
    instances = found((1, 0.5, SMALL))
    (result,) = instances_to_coco_json(instances, 7)
    assert (result["image_id"], result["category_id"], result["score"]) == (7, 1, 0.5)
    assert result["bbox"] == [60, 60, 20, 20] and isinstance(result["segmentation"]["counts"], str)
    instances.remove("pred_masks")
    assert "segmentation" not in instances_to_coco_json(instances, 7)[0]


# ------------------------------------------------------------------------------------- panoptic
IDS = {c["id"]: i for i, c in enumerate(panoptic_cases.CATEGORIES)}
THINGS = {c["id"]: IDS[c["id"]] for c in panoptic_cases.CATEGORIES if c["isthing"]}
STUFF = {i: n for i, n in IDS.items() if i not in THINGS}


def panoptic_metadata(folder, pairs):
    truth, predicted = panoptic_cases.write(folder, pairs)
    metadata = {
        "panoptic_json": truth,
        "panoptic_root": str(folder / "gt"),
        "thing_dataset_id_to_contiguous_id": THINGS,
        "stuff_dataset_id_to_contiguous_id": STUFF,
        "label_divisor": 1000,
    }
    return metadata, pq_compute(truth, predicted)


def panoptic_output(ids, segments):
    """As a model has it: contiguous classes, things and stuff told apart."""
    segments = [
        {**s, "category_id": IDS[s["category_id"]], "isthing": s["category_id"] in THINGS}
        for s in segments
    ]
    return {"panoptic_seg": (torch.from_numpy(ids.astype(np.int32)), segments)}


def evaluate_panoptic(evaluator, pairs, numbers=None):
    evaluator.reset()
    for number in range(len(pairs)) if numbers is None else numbers:
        image = {"image_id": number, "file_name": f"folder/{number}.jpg"}
        evaluator.process([image], [panoptic_output(*pairs[number][2:])])
    return evaluator.evaluate()


def check_quality(results, expected):
    assert list(results) == ["panoptic_seg"] and len(results["panoptic_seg"]) == 9
    for suffix, group in (("", "All"), ("_th", "Things"), ("_st", "Stuff")):
        for name in ("PQ", "SQ", "RQ"):
            value = results["panoptic_seg"][name + suffix]
            assert value == pytest.approx(100 * expected[group][name.lower()], rel=1e-12)


def test_panoptic_quality(register, tmp_path):
    pairs = panoptic_cases.draw_pairs(11)
    metadata, expected = panoptic_metadata(tmp_path, pairs)
    name = register("panoptic", [], **metadata)
    output = tmp_path / "output"
    check_quality(evaluate_panoptic(COCOPanopticEvaluator(name, str(output)), pairs), expected)
    stored = json.loads((output / "predictions.json").read_text())["annotations"]
    assert [a["image_id"] for a in stored] == [0, 1, 2, 3]
    assert [a["file_name"] for a in stored] == [f"{i}.png" for i in range(4)]
    assert [s["category_id"] for s in stored[0]["segments_info"]] == [
        s["category_id"] for s in pairs[0][3]
    ]
    # An image that is predicted twice counts once, without a folder for the results too.
    twice = evaluate_panoptic(COCOPanopticEvaluator(name), pairs, [0, 1, 2, 3, 1])
    check_quality(twice, expected)


def test_panoptic_labels_without_a_list_of_segments(register, tmp_path):
    """Ids are class * label_divisor + number, -1 for none."""
    pairs = panoptic_cases.draw_pairs(12, num_images=1)
    metadata, expected = panoptic_metadata(tmp_path, pairs)
    _, _, ids, segments = pairs[0]
    labels = np.full_like(ids, -1)
    for number, segment in enumerate(segments):
        labels[ids == segment["id"]] = 1000 * IDS[segment["category_id"]] + number
    evaluator = COCOPanopticEvaluator(register("panoptic_labels", [], **metadata))
    evaluator.reset()
    output = {"panoptic_seg": (torch.from_numpy(labels), None)}
    evaluator.process([{"image_id": 0, "file_name": "0.jpg"}], [output])
    check_quality(evaluator.evaluate(), expected)


# ---------------------------------------------------------------------------------- two processes
SHARES = {"uneven": ((2,), (0, 1, 3)), "nothing for one": ((), (3, 1, 2, 0))}


def evaluate_in_process(rank, folder, metadata):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/rendezvous", world_size=2, rank=rank)
    comm.create_local_process_group(2)
    for name, entries in metadata.items():
        DatasetCatalog.register(name, list)
        MetadataCatalog.get(name).set(**entries)
    results = {}
    for which, shares in SHARES.items():
        _, predictions = cases.draw(3)
        evaluator = COCOEvaluator("coco", use_fast_impl=False)
        evaluator.reset()
        for i in shares[rank]:
            evaluator.process([{"image_id": i + 1}], [{"instances": found(*predictions[i])}])
        pairs = panoptic_cases.draw_pairs(13)
        quality = evaluate_panoptic(COCOPanopticEvaluator("panoptic"), pairs, shares[rank])
        results[which] = evaluator.evaluate(), quality
    torch.save(results, f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def test_two_processes_agree_with_one(register, tmp_path):
    annotations, predictions = cases.draw(3)
    coco = {
        "json_file": cases.write_truth(
            tmp_path / "truth.json", annotations, {0: "a", 1: "b", 2: "c"}, num_images=4
        ),
        "thing_classes": ["a", "b", "c"],
    }
    panoptic, quality = panoptic_metadata(tmp_path, panoptic_cases.draw_pairs(13))
    mp.spawn(evaluate_in_process, (tmp_path, {"coco": coco, "panoptic": panoptic}), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(2))
    alone = COCOEvaluator(register("coco_alone", [], **coco), use_fast_impl=False)
    expected = evaluate(alone, *predictions)
    assert 5 < expected["segm"]["AP"] < 95
    for which in SHARES:
        assert second[which] == ({}, None)
        for task in ("bbox", "segm"):
            assert first[which][0][task] == pytest.approx(expected[task], nan_ok=True)
        check_quality(first[which][1], quality)
