"""Ids as colours, and who is found by `import panopticapi`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import mask2former  # noqa: F401  (after it, `import panopticapi` works)

# isort: split
import numpy as np
import pytest
from panopticapi.utils import IdGenerator, id2rgb, rgb2id, save_json

ROOT = Path(__file__).parents[2]
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


def origin_of_panopticapi(tmp_path):
    program = "import mask2former, panopticapi; print(panopticapi.__file__)"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    environment["M2F_DETECTRON2"] = "auto"
    found = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    return Path(found.stdout.strip())


def test_an_installed_one_is_found_first(tmp_path):
    (tmp_path / "panopticapi").mkdir()
    (tmp_path / "panopticapi" / "__init__.py").touch()
    assert origin_of_panopticapi(tmp_path).is_relative_to(tmp_path)
