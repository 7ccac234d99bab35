"""The miniature of every dataset, in the catalogs."""

import os

import pytest

from mask2former.data.datasets import register_all
from mask2former.data.mini.ade20k import make_mini_ade20k, make_mini_ade20k_full
from mask2former.data.mini.cityscapes import ensure_mini_cityscapes
from mask2former.data.mini.coco import make_mini_coco
from mask2former.data.mini.maker import MiniSpec
from mask2former.data.mini.mapillary_vistas import make_mini_mapillary_vistas

SPEC = MiniSpec(height=96, width=128, num_train=1, num_val=3, seed=1)
STREETS = MiniSpec(height=96, width=192, num_train=1, num_val=3, seed=5)


@pytest.fixture(scope="session")
def _minis_once(tmp_path_factory):
    root = tmp_path_factory.mktemp("minis")
    ensure_mini_cityscapes(root / "mini_cityscapes", STREETS, show_progress=False)
    for make in (
        make_mini_coco,
        make_mini_ade20k,
        make_mini_ade20k_full,
        make_mini_mapillary_vistas,
    ):
        make(root, SPEC, show_progress=False)
    return root


@pytest.fixture
def minis(_minis_once):
    """A DETECTRON2_DATASETS with all of them, registered. Not to be written to."""
    register_all(str(_minis_once))
    yield _minis_once
    register_all(os.getenv("DETECTRON2_DATASETS", "datasets"))
