"""Ids as colours, Panoptic Quality as panopticapi has it, and who `import panopticapi` finds."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import mask2former  # noqa: F401  (after it, `import panopticapi` works)

# isort: split
import numpy as np
import panoptic_cases as cases
import pytest
from panopticapi.evaluation import PQStat, PQStatCat, pq_compute, pq_compute_single_core
from panopticapi.utils import IdGenerator, id2rgb, rgb2id, save_json

ROOT = Path(__file__).parents[2]
# What panopticapi computed of the drawn cases, by their seed.
GOLDEN = json.loads((ROOT / "tests" / "goldens" / "panopticapi.json").read_text())
IDS = [0, 1, 255, 256, 65535, 65536, 70000, 256**3 - 1]


@pytest.mark.parametrize("segment", IDS)
def test_an_id_is_a_colour_and_back(segment):
    red, green, blue = id2rgb(segment)
    assert (red, green, blue) == (segment % 256, segment // 256 % 256, segment // 65536)
    assert rgb2id((red, green, blue)) == segment
    assert isinstance(rgb2id(np.array([red, green, blue], np.uint8)), int)


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int64])
def test_maps_of_ids(dtype):
    ids = np.array([IDS, IDS[::-1]], dtype)
    before = ids.copy()
    colours = id2rgb(ids)
    assert colours.shape == (2, len(IDS), 3) and colours.dtype == np.uint8
    assert (colours[0] == [id2rgb(i) for i in IDS]).all()
    assert rgb2id(colours).dtype == np.int32
    assert (rgb2id(colours) == before).all() and (ids == before).all()
    assert rgb2id(colours.astype(np.uint32)).dtype == np.uint32


def test_generated_ids_differ_and_look_like_their_category():
    categories = {
        1: {"isthing": 1, "color": [220, 20, 60]},
        2: {"isthing": 0, "color": [220, 20, 60]},  # taken from the start
        3: {"isthing": 1, "color": [0, 0, 0]},
    }
    generator = IdGenerator(categories)
    assert generator.get_id(2) == generator.get_id(2) == rgb2id([220, 20, 60])
    for category in (1, 3):
        found = [generator.get_id_and_color(category) for _ in range(300)]
        assert [rgb2id(color) for _, color in found] == [segment for segment, _ in found]
        segments = {segment for segment, _ in found} - {0, rgb2id([220, 20, 60])}
        assert len(segments) == 300
        base = np.array(categories[category]["color"])
        assert max(abs(np.array(color) - base).max() for _, color in found) <= 30


def test_save_json(tmp_path):
    save_json({"annotations": [1]}, str(tmp_path / "a.json"))
    assert json.loads((tmp_path / "a.json").read_text()) == {"annotations": [1]}


@pytest.mark.parametrize("seed", GOLDEN)
def test_quality_is_that_of_panopticapi(tmp_path, seed):
    found = pq_compute(*cases.write(tmp_path, cases.draw_pairs(int(seed))))
    expected = GOLDEN[seed]
    assert found.keys() == expected.keys()
    for name in ("All", "Things", "Stuff"):
        assert found[name] == pytest.approx(expected[name], rel=1e-12)
    for category, scores in expected["per_class"].items():
        assert found["per_class"][int(category)] == pytest.approx(scores, rel=1e-12)
    assert 0.2 < found["All"]["pq"] < 0.8


def test_counts_of_images_add_up(tmp_path):
    pairs = cases.draw_pairs(1)
    jsons = [json.loads(Path(file).read_text()) for file in cases.write(tmp_path, pairs)]
    annotations = list(zip(*(content["annotations"] for content in jsons)))
    categories = {c["id"]: c for c in cases.CATEGORIES}
    folders = (str(tmp_path / "gt"), str(tmp_path / "predicted"))
    whole = pq_compute_single_core(0, annotations, *folders, categories)
    parts = PQStat()
    for pair in annotations:
        parts += pq_compute_single_core(1, [pair], *folders, categories)
    assert parts.pq_per_cat == whole.pq_per_cat and whole.pq_per_cat
    for isthing in (None, True, False):
        average, per_class = whole.pq_average(categories, isthing)
        chosen = [c for c in categories if isthing in (None, categories[c]["isthing"] == 1)]
        assert list(per_class) == chosen and 0 < average["n"] < len(categories)
    assert whole[7] is whole.pq_per_cat[7] and isinstance(whole[7], PQStatCat)


def test_areas_are_counted_where_the_json_has_none(tmp_path):
    pairs = cases.draw_pairs(2)
    expected = pq_compute(*cases.write(tmp_path, pairs))
    for _, segments, _, _ in pairs:
        for segment in segments:
            del segment["area"]
    assert pq_compute(*cases.write(tmp_path, pairs)) == expected


def test_folders_follow_from_the_names(tmp_path):
    truth, predicted = cases.write(tmp_path, cases.draw_pairs(3))
    named = pq_compute(truth, predicted, str(tmp_path / "gt"), str(tmp_path / "predicted"))
    assert named == pq_compute(truth, predicted)
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        pq_compute(truth, predicted, gt_folder=str(tmp_path / "nowhere"))


FAULTS = {
    "its PNG has segments \\[999999\\]": lambda ids, segments: ids.__setitem__((0, 0), 999999),
    "has \\[4\\] that are not in the PNG": lambda ids, segments: segments.append(
        {"id": 4, "category_id": 7}
    ),
    "category ids \\[8\\]": lambda ids, segments: segments[0].update(category_id=8),
}


@pytest.mark.parametrize("sentence", FAULTS)
def test_what_contradicts_itself_is_refused(tmp_path, sentence):
    pairs = cases.draw_pairs(4)
    FAULTS[sentence](*pairs[1][2:])
    with pytest.raises(ValueError, match=f"prediction of image 1.*{sentence}"):
        pq_compute(*cases.write(tmp_path, pairs))


def test_predictions_have_to_be_there_and_fit(tmp_path):
    pairs = cases.draw_pairs(5)
    truth, predicted = cases.write(tmp_path, pairs)
    content = json.loads(Path(predicted).read_text())
    del content["annotations"][2]
    Path(predicted).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"1 images of .* \(the first: 2\)"):
        pq_compute(truth, predicted)
    ids, segments, predicted_ids, predicted_segments = pairs[0]
    pairs[0] = (ids, segments, predicted_ids[:-1], predicted_segments)
    with pytest.raises(ValueError, match=r"0.png is of size \(39, 56\)"):
        pq_compute(*cases.write(tmp_path, pairs))


def origin_of_panopticapi(tmp_path):
    program = "import mask2former, panopticapi; print(panopticapi.__file__)"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    environment["M2F_DETECTRON2"] = "auto"
    found = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    return Path(found.stdout.strip())


def test_an_installed_one_is_found_first(tmp_path):
    ours = ROOT / "mask2former" / "embedded" / "panopticapi"
    shutil.copytree(ours, tmp_path / "panopticapi")
    assert origin_of_panopticapi(tmp_path).is_relative_to(tmp_path)
