"""Panoptic Quality against torchmetrics, which knows no crowds, and by hand with them.

By panopticapi of files, and by our counts of maps.
"""

import numpy as np
import panoptic_cases
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from panopticapi.evaluation import pq_compute
from torchmetrics.detection import PanopticQuality

from mask2former.evaluation.panoptic_quality import (
    TrueSegments,
    count_image,
    joint_histogram,
    mean_quality,
    quality,
)

THINGS, STUFF = (2, 9, 200), (1, 7, 30)
CATEGORIES = [
    {"id": i, "name": str(i), "isthing": int(i in THINGS)} for i in sorted(THINGS + STUFF)
]
VOID = 0  # category and number of an instance, of pixels that are nothing
SIZE = (24, 32)


def draw(generator, background, num_blocks):
    """Categories and numbers of instances (H,W,2): rectangles over one background."""
    labels = np.zeros((*SIZE, 2), np.int64)
    labels[..., 0] = background
    for number in range(1, num_blocks + 1):
        y, x = (int(generator.integers(0, extent - 3)) for extent in SIZE)
        height, width = generator.integers(3, 18, 2)
        category = int(generator.choice([*THINGS, *STUFF, background]))
        block = labels[y : y + height, x : x + width]
        block[..., 0], block[..., 1] = category, number if category in THINGS else 0
    return labels


def disturb(generator, labels):
    """A prediction for the labels: moved, some blocks of another class, and nowhere void."""
    moved = np.roll(labels, generator.integers(-2, 3, 2), (0, 1))
    moved[moved[..., 0] == VOID] = (STUFF[0], 0)
    if generator.random() < 0.5:
        wrong, right = (int(c) for c in generator.choice([*THINGS, *STUFF], 2))
        moved[moved[..., 0] == wrong] = (right, 50 if right in THINGS else 0)
    return moved


def segments_of(labels):
    """Ids (H,W), and a list of segments."""
    ids = 1000 * labels[..., 0] + labels[..., 1]
    present = [i for i in np.unique(ids).tolist() if i != VOID]
    return ids, [
        {"id": i, "category_id": i // 1000, "iscrowd": 0, "area": int((ids == i).sum())}
        for i in present
    ]


def of_files(folder, files):
    return pq_compute(*panoptic_cases.write(folder, files, CATEGORIES))


def of_maps(folder, files):
    """What `pq_compute` would give, from our counts."""
    index = {category["id"]: i for i, category in enumerate(CATEGORIES)}
    is_thing = np.array([category["isthing"] == 1 for category in CATEGORIES])
    counts = np.zeros((len(CATEGORIES), 4))
    for true_ids, truths, predicted_ids, predictions in files:
        ids = [torch.from_numpy(i) for i in (true_ids, predicted_ids)]
        lists = [[segment["id"] for segment in s] for s in (truths, predictions)]
        pixels = joint_histogram(*ids, *lists)
        assert pixels.sum() == true_ids.size and not pixels[:, -1].any()
        known = TrueSegments(
            np.array([index[s["category_id"]] for s in truths], int),
            np.array([s["iscrowd"] for s in truths], bool),
            np.array([s["area"] for s in truths], float),
        )
        predicted = np.array([index[s["category_id"]] for s in predictions], int)
        counts += count_image(pixels, known, predicted, len(CATEGORIES))
    scores, results = quality(counts), {}
    for group, chosen in (("All", is_thing | True), ("Things", is_thing), ("Stuff", ~is_thing)):
        means, number = mean_quality(scores, chosen)
        results[group] = dict(zip(("pq", "sq", "rq"), np.array(means) / 100), n=number)
    of_each = np.nan_to_num(scores / 100).tolist()
    results["per_class"] = {c: dict(zip(("pq", "sq", "rq"), of_each[i])) for c, i in index.items()}
    return results


both = pytest.mark.parametrize("judge", [of_files, of_maps])


def judged(judge, folder, pairs):
    return judge(folder, [(*segments_of(truth), *segments_of(found)) for truth, found in pairs])


def theirs(pairs):
    """Category ids and (PQ, SQ, RQ) of each."""
    metric = PanopticQuality(THINGS, STUFF, return_sq_and_rq=True, return_per_class=True)
    for truth, predicted in pairs:
        metric.update(torch.from_numpy(predicted)[None], torch.from_numpy(truth)[None])
    return [*THINGS, *STUFF], metric.compute().tolist()


def check(judge, folder, pairs):
    found = judged(judge, folder, pairs)
    categories, scores = theirs(pairs)
    seen = {int(c) for pair in pairs for labels in pair for c in np.unique(labels[..., 0])} - {VOID}
    for category, expected in zip(categories, scores):
        values = [found["per_class"][category][key] for key in ("pq", "sq", "rq")]
        assert values == pytest.approx(np.nan_to_num(expected).tolist(), abs=1e-6), category
    assert found["All"]["n"] <= len(seen)
    for group, members in (("Things", THINGS), ("Stuff", STUFF)):
        scores_of = [found["per_class"][c]["pq"] for c in members if c in seen]
        if found[group]["n"] == len(scores_of) > 0:  # less if all of a class lies in void
            assert found[group]["pq"] == pytest.approx(np.mean(scores_of))
    return found


@both
@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), background=st.sampled_from([VOID, 1, 30]))
def test_random_images(judge, tmp_path_factory, seed, background):
    generator = np.random.default_rng(seed)
    truths = [draw(generator, background, int(generator.integers(0, 9))) for _ in range(3)]
    pairs = [(t, disturb(generator, t)) for t in truths]
    check(judge, tmp_path_factory.mktemp("pq"), pairs)


@both
def test_perfect_predictions(judge, tmp_path):
    generator = np.random.default_rng(0)
    truths = [draw(generator, 1, 8) for _ in range(2)]
    found = check(judge, tmp_path, [(t, t) for t in truths])
    assert [found[group]["pq"] for group in ("All", "Things", "Stuff")] == [1, 1, 1]


@both
def test_only_void_is_no_mistake_and_no_number(judge, tmp_path):
    void = np.zeros((*SIZE, 2), np.int64)
    found = check(judge, tmp_path, [(void, draw(np.random.default_rng(0), 1, 5))])
    assert found["All"]["n"] == 0 and np.isnan(found["All"]["pq"])


@both
def test_nothing_predicted_misses_all(judge, tmp_path):
    truth = draw(np.random.default_rng(0), 1, 8)
    found = judged(judge, tmp_path, [(truth, np.zeros_like(truth))])
    assert found["All"]["pq"] == 0
    assert found["All"]["n"] == len(np.unique(truth[..., 0]))


# --------------------------------------------------------------------------------- by hand
# A picture of 10 pixels, each segment a run of them: (category, pixels, iscrowd).
HAND = {
    # 6 of 8 common pixels: IoU 0.75
    "one match": ([(2, "01234567", 0)], [(2, "012345", 0)], {2: (0.75, 0.75, 1)}),
    "half is no match": (
        [(2, "0123", 0), (7, "456789", 0)],
        [(2, "01234567", 0), (7, "89", 0)],
        {2: (0, 0, 0), 7: (0, 0, 0)},
    ),
    "another category": ([(2, "0123", 0)], [(9, "0123", 0)], {2: (0, 0, 0), 9: (0, 0, 0)}),
    # The void pixels 6 to 9 belong to no union: IoU 4 / 6. What is mostly void is no mistake.
    "void": (
        [(2, "012345", 0)],
        [(2, "234567", 0), (2, "018", 0), (2, "9", 0)],
        {2: (4 / 6 / 1.5, 4 / 6, 1 / 1.5)},  # "018" lies on the object by two thirds: wrong
    ),
    # A crowd is not missed; what lies in a crowd of its category is right, of another wrong.
    "crowds": (
        [(2, "0123", 0), (2, "456789", 1)],
        [(2, "0123", 0), (2, "456", 0), (9, "789", 0)],
        {2: (1, 1, 1), 9: (0, 0, 0)},
    ),
    # A prediction half of which is void or crowd is a mistake, with more than half it is not.
    "half a crowd": (
        [(2, "0", 1), (2, "123456", 0)],
        [(2, "23456", 0), (2, "01", 0)],
        {2: (5 / 6 / 1.5, 5 / 6, 1 / 1.5)},
    ),
    "void and crowd together": (
        [(2, "0", 1), (2, "12345", 0)],
        [(2, "2345", 0), (2, "019", 0)],
        {2: (0.8, 0.8, 1)},
    ),
    # A crowd is matched with nothing, however well it fits.
    "a crowd as a segment": ([(2, "01234", 1)], [(2, "01234", 0)], {}),
    "an unseen crowd": ([(2, "01234", 1), (1, "56789", 0)], [(1, "56789", 0)], {1: (1, 1, 1)}),
}


def segments_by_hand(runs):
    ids, segments = np.zeros((1, 10), np.int64), []
    for number, (category, pixels, iscrowd) in enumerate(runs, 70000):
        ids[0, [int(p) for p in pixels]] = number
        segments.append(
            {"id": number, "category_id": category, "iscrowd": iscrowd, "area": len(pixels)}
        )
    return ids, segments


@both
@pytest.mark.parametrize("case", HAND)
def test_by_hand(judge, tmp_path, case):
    truth, predicted, expected = HAND[case]
    pair = (*segments_by_hand(truth), *segments_by_hand(predicted))
    found = judge(tmp_path, [pair])
    assert found["All"]["n"] == len(expected)
    for category in CATEGORIES:
        scores = found["per_class"][category["id"]]
        expected_scores = expected.get(category["id"], (0, 0, 0))
        assert (scores["pq"], scores["sq"], scores["rq"]) == pytest.approx(expected_scores)
    if expected:
        assert found["All"]["pq"] == pytest.approx(np.mean([pq for pq, _, _ in expected.values()]))
