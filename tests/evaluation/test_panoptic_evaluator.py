"""Our streaming Panoptic Quality: what a loop over pixels finds, and what panopticapi says."""

import copy
import json
import logging
import math
from collections import Counter

import numpy as np
import panoptic_cases
import pytest
import torch
from detectron2.evaluation import COCOPanopticEvaluator
from detectron2.utils import comm
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mask2former.data.datasets.catalog import register
from mask2former.evaluation.panoptic import PanopticEvaluator

CATEGORIES = panoptic_cases.CATEGORIES
CONTIGUOUS = {c["id"]: i for i, c in enumerate(CATEGORIES)}
THINGS = {c["id"]: CONTIGUOUS[c["id"]] for c in CATEGORIES if c["isthing"]}
STUFF = {c: i for c, i in CONTIGUOUS.items() if c not in THINGS}
NAME = "drawn_panoptic"
LARGEST = 256**3 - 1  # of ids in PNGs
SCORES = ("PQ", "SQ", "RQ")


def make_dataset(folder, pairs):
    truth, _ = panoptic_cases.write(folder, pairs)
    register(
        NAME,
        list,
        panoptic_json=truth,
        panoptic_root=str(folder / "gt"),
        thing_dataset_id_to_contiguous_id=THINGS,
        stuff_dataset_id_to_contiguous_id=STUFF,
    )


def output_of(ids, segments):
    """As a model has it: contiguous classes, things and stuff told apart."""
    segments = [
        {
            "id": s["id"],
            "category_id": CONTIGUOUS[s["category_id"]],
            "isthing": s["category_id"] in THINGS,
        }
        for s in segments
    ]
    return {"panoptic_seg": (torch.from_numpy(ids.astype(np.int32)), segments)}


def evaluate(evaluator, outputs):
    evaluator.reset()
    for number, output in enumerate(outputs):
        evaluator.process([{"image_id": number, "file_name": f"{number}.jpg"}], [output])
    results = evaluator.evaluate()
    assert list(results) == ["panoptic_seg"]
    return results["panoptic_seg"]


# ----------------------------------------------------------------------------------- the judges
def slow_results(pairs):
    """From sets of pixels, as the paper has it; crowds and void as panopticapi has them."""
    sums = {category: Counter() for category in CONTIGUOUS}
    for true_ids, truths, ids, predictions in pairs:
        pixels, found = pixels_of(true_ids), pixels_of(ids)
        void = pixels.pop(0, set())
        found.pop(0, None)
        matched = set()
        for truth in truths:
            if truth["iscrowd"]:
                continue
            for prediction in predictions:
                a, b = pixels[truth["id"]], found[prediction["id"]]
                iou = len(a & b) / len((a | b) - void)
                if truth["category_id"] == prediction["category_id"] and iou > 0.5:
                    sums[truth["category_id"]].update(iou=iou, tp=1)
                    matched |= {("true", truth["id"]), ("found", prediction["id"])}
            sums[truth["category_id"]]["fn"] += ("true", truth["id"]) not in matched
        for prediction in predictions:
            crowds = [
                pixels[truth["id"]]
                for truth in truths
                if truth["iscrowd"] and truth["category_id"] == prediction["category_id"]
            ]
            excused = void.union(*crowds[-1:]) & found[prediction["id"]]
            if ("found", prediction["id"]) not in matched:
                is_wrong = len(excused) / len(found[prediction["id"]]) <= 0.5
                sums[prediction["category_id"]]["fp"] += is_wrong
    return in_percent(sums)


def pixels_of(ids):
    """Id -> where it is."""
    pixels = {}
    for y, row in enumerate(ids.tolist()):
        for x, value in enumerate(row):
            pixels.setdefault(value, set()).add((y, x))
    return pixels


def in_percent(sums):
    scores = {}
    for category, n in sums.items():
        if n["tp"] + n["fp"] + n["fn"]:
            sq = n["iou"] / n["tp"] if n["tp"] else 0
            rq = n["tp"] / (n["tp"] + n["fp"] / 2 + n["fn"] / 2)
            scores[category] = (100 * sq * rq, 100 * sq, 100 * rq)
    results = {}
    for suffix, group in (("", CONTIGUOUS), ("_th", THINGS), ("_st", STUFF)):
        of_group = [scores[category] for category in group if category in scores]
        means = np.mean(of_group, 0) if of_group else [math.nan] * 3
        results |= {f"{name}{suffix}": value for name, value in zip(SCORES, means)}
    nothing = [math.nan]
    return results | {f"PQ-{c['name']}": scores.get(c["id"], nothing)[0] for c in CATEGORIES}


def check(folder, pairs):
    """Ours, detectron2's with panopticapi, and the loop agree; gives ours."""
    make_dataset(folder, pairs)
    outputs = [output_of(*pair[2:]) for pair in pairs]
    found = evaluate(PanopticEvaluator(NAME), outputs)
    expected = slow_results(pairs)
    assert list(found) == list(expected)
    assert found == pytest.approx(expected, abs=1e-6, nan_ok=True)
    # panopticapi divides by zero where a group has no category that was seen.
    if not any(math.isnan(found[f"PQ{suffix}"]) for suffix in ("", "_th", "_st")):
        official = evaluate(COCOPanopticEvaluator(NAME), outputs)
        assert list(official) == list(found)[:9]
        assert official == pytest.approx({k: found[k] for k in official}, abs=1e-6)
    return found


# -------------------------------------------------------------------------------------- the cases
@st.composite
def images(draw):
    """Pixels or rectangles of a few ids of any size: (true ids, segments, ids, segments)."""
    height, width = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    truth, segments = scatter(draw, generator, (height, width), draw(st.integers(0, 5)))
    crowd = draw(st.sampled_from([0, 0.5, 1]))
    for segment in segments:
        segment["iscrowd"] = int(generator.random() < crowd)
        segment["area"] = int((truth == segment["id"]).sum())
    if draw(st.booleans()):
        hidden = generator.random(truth.shape) < 0.2
        return truth, segments, *listed(np.where(hidden, 0, truth), segments)
    return truth, segments, *scatter(draw, generator, (height, width), draw(st.integers(0, 5)))


def scatter(draw, generator, size, num_segments):
    ids = draw(
        st.lists(
            st.one_of(st.integers(1, 9), st.integers(65530, 65540), st.integers(1, LARGEST)),
            min_size=num_segments,
            max_size=num_segments,
            unique=True,
        )
    )
    categories = [int(c) for c in generator.choice(panoptic_cases.DRAWN[:3], num_segments)]
    canvas = np.zeros(size, np.int64)
    if draw(st.booleans()):
        canvas[:] = generator.choice([0, *ids], size)
    else:
        for i in ids:
            y, x = (int(generator.integers(extent)) for extent in size)
            canvas[y : y + generator.integers(1, 9), x : x + generator.integers(1, 9)] = i
    return listed(canvas, [{"id": i, "category_id": c} for i, c in zip(ids, categories)])


def listed(ids, segments):
    present = set(np.unique(ids).tolist())
    kept = [{k: s[k] for k in ("id", "category_id")} for s in segments if s["id"] in present]
    return ids, kept


@settings(max_examples=60, deadline=None, derandomize=True)
@given(pairs=st.lists(images(), min_size=1, max_size=3))
def test_any_images(tmp_path_factory, pairs):
    check(tmp_path_factory.mktemp("pq"), pairs)


def test_drawn_images(tmp_path):
    found = check(tmp_path, panoptic_cases.draw_pairs(4, num_images=5))
    assert 5 < found["PQ"] < 95 and math.isnan(found["PQ-class 5"])


def test_perfect_predictions(tmp_path):
    pairs = panoptic_cases.draw_pairs(5, crowds=False)
    found = check(
        tmp_path, [(ids, segments, *listed(ids, segments)) for ids, segments, *_ in pairs]
    )
    assert {value for value in found.values() if not math.isnan(value)} == {100}


def test_empty_predictions(tmp_path):
    found = check(tmp_path, [(*p[:2], 0 * p[0], []) for p in panoptic_cases.draw_pairs(6)])
    assert {value for value in found.values() if not math.isnan(value)} == {0}


def test_nothing_but_void(tmp_path):
    predictions = [pair[2:] for pair in panoptic_cases.draw_pairs(7)]
    found = check(tmp_path, [(0 * ids, [], ids, segments) for ids, segments in predictions])
    assert all(map(math.isnan, found.values()))


def test_a_single_pixel(tmp_path):
    ids, segments = np.full((1, 1), LARGEST), [{"id": LARGEST, "category_id": 2}]
    truth = [{**segments[0], "iscrowd": 0, "area": 1}]
    found = check(tmp_path, [(ids, truth, ids, segments), (0 * ids, [], ids, segments)])
    assert found["PQ-class 2"] == 100  # what lies on void is no mistake


def test_areas_are_those_of_the_json(tmp_path):
    """Where it has some. And pixels of an id that no list has are neither void nor a segment."""
    pairs = panoptic_cases.draw_pairs(8, crowds=False)
    for ids, segments, *_ in pairs:
        ids[:5, :9] = 4711
        for segment in segments:
            segment["area"] += 15
    outputs = [output_of(*pair[2:]) for pair in pairs]
    make_dataset(tmp_path, pairs)
    found = evaluate(PanopticEvaluator(NAME), outputs)
    # detectron2 changes what it is given.
    official = evaluate(COCOPanopticEvaluator(NAME), copy.deepcopy(outputs))
    assert official == pytest.approx({k: found[k] for k in official}, abs=1e-6)
    counted = slow_results(pairs)
    assert found["PQ"] != pytest.approx(counted["PQ"], abs=1e-3)
    for segment in (segment for pair in pairs for segment in pair[1]):
        del segment["area"]
    make_dataset(tmp_path, pairs)
    assert evaluate(PanopticEvaluator(NAME), outputs) == pytest.approx(counted, nan_ok=True)


def test_each_image_counts_once(tmp_path):
    pairs = panoptic_cases.draw_pairs(10)
    make_dataset(tmp_path, pairs)
    outputs = [output_of(*pair[2:]) for pair in pairs]
    evaluator = PanopticEvaluator(NAME)
    expected = evaluate(evaluator, outputs)
    again = evaluate(evaluator, outputs)  # it has forgotten them
    assert again == pytest.approx(expected, rel=0, abs=0, nan_ok=True)
    evaluator.process([{"image_id": 2, "file_name": "2.jpg"}], outputs[:1])
    evaluator.process([{"image_id": 77, "file_name": "unknown.jpg"}], outputs[:1])
    again = evaluator.evaluate()["panoptic_seg"]
    assert again == pytest.approx(expected, rel=0, abs=0, nan_ok=True)


def test_what_is_logged(tmp_path, caplog):
    with caplog.at_level(logging.DEBUG, "mask2former.evaluation"):
        logging.getLogger("mask2former").propagate = True
        check(tmp_path, panoptic_cases.draw_pairs(4))
    groups, categories = [r.getMessage() for r in caplog.records if r.name.endswith(".panoptic")]
    assert [line.split()[1] for line in groups.splitlines()[3:]] == ["All", "Things", "Stuff"]
    assert len(categories.splitlines()) == 3 + len(CATEGORIES)


# ------------------------------------------------------------------------------------ mistakes
def drop(segments):
    del segments[0]


def add(segments):
    segments.append({**segments[0], "id": 5})


def rename(segments):
    segments[0]["category_id"] = 99


@pytest.mark.parametrize(
    "change, told",
    [
        (
            drop,
            r"the prediction for 0.jpg: its map has segments \[70000\] that are not in its list",
        ),
        (add, r"its list, which has \[5\] that are not in the map; give both the same segments"),
        (rename, "0.jpg: a segment of (thing|stuff) 99, which drawn_panoptic has not; evaluate a"),
    ],
)
def test_predictions_that_contradict_themselves(tmp_path, change, told):
    pairs = panoptic_cases.draw_pairs(4, num_images=1)
    make_dataset(tmp_path, pairs)
    output = output_of(*pairs[0][2:])
    change(output["panoptic_seg"][1])
    with pytest.raises(ValueError, match=told):
        evaluate(PanopticEvaluator(NAME), [output])


def test_sizes_and_files_that_do_not_fit(tmp_path):
    pairs = panoptic_cases.draw_pairs(4, num_images=1)
    make_dataset(tmp_path, pairs)
    _, _, ids, segments = pairs[0]
    path = tmp_path / "gt" / "0.png"
    with pytest.raises(ValueError, match=r"0.png: its size is \(40, 56\), and .* is \(56, 40\)"):
        evaluate(PanopticEvaluator(NAME), [output_of(ids.T, segments)])
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"0\.png: not a whole picture"):
        evaluate(PanopticEvaluator(NAME), [output_of(ids, segments)])
    Image.fromarray(ids.astype(np.uint8)).save(path)
    with pytest.raises(ValueError, match=r"0\.png: a picture of mode L; segment ids are RGB"):
        evaluate(PanopticEvaluator(NAME), [output_of(ids, segments)])
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"0\.png: no such file; prepare the dataset again"):
        evaluate(PanopticEvaluator(NAME), [output_of(ids, segments)])


def test_images_that_nobody_or_two_have_predicted(tmp_path, monkeypatch):
    pairs = panoptic_cases.draw_pairs(4)
    make_dataset(tmp_path, pairs)
    outputs = [output_of(*pair[2:]) for pair in pairs]
    with pytest.raises(
        ValueError, match=r"^2 images of .*gt\.json have no .*\(the first: 2\); pred"
    ):
        evaluate(PanopticEvaluator(NAME), outputs[:2])
    monkeypatch.setattr(comm, "gather", lambda data: [data, data])
    with pytest.raises(
        ValueError, match="drawn_panoptic: 4 images were predicted by two processes"
    ):
        evaluate(PanopticEvaluator(NAME), outputs)


def test_a_broken_json_is_a_sentence(tmp_path):
    make_dataset(tmp_path, panoptic_cases.draw_pairs(4, num_images=1))
    path = tmp_path / "gt.json"
    path.write_text(path.read_text()[:50])
    with pytest.raises(ValueError, match=r"gt\.json: not whole .* prepare the dataset again"):
        PanopticEvaluator(NAME)
    path.write_text(json.dumps({"annotations": []}))
    with pytest.raises(ValueError, match=r"gt\.json: no categories in it"):
        PanopticEvaluator(NAME)
