"""A prepared mini Cityscapes, a mini COCO, and catalogs that are as before after a test."""

import shutil

import pytest
from detectron2.config import get_cfg

from mask2former.config import add_maskformer2_config
from mask2former.data.datasets import register_all
from mask2former.data.files import datasets_root as default_datasets_root
from mask2former.data.mini.cityscapes import ensure_mini_cityscapes
from mask2former.data.mini.coco import make_mini_coco
from mask2former.data.mini.maker import MiniSpec

SPEC = MiniSpec(height=96, width=192, num_train=6, num_val=3, seed=5)
COCO_SPEC = MiniSpec(height=96, width=144, num_train=5, num_val=3, seed=9)


@pytest.fixture
def default_root():
    """Catalogs of datasets/, whatever the environment says. What a test registers ends with it."""
    register_all("datasets")
    yield
    register_all(default_datasets_root())


@pytest.fixture(scope="session")
def _datasets_once(tmp_path_factory):
    root = tmp_path_factory.mktemp("datasets")
    ensure_mini_cityscapes(root / "mini_cityscapes", SPEC, show_progress=False)
    return root


@pytest.fixture
def datasets_root(_datasets_once, default_root):
    """A DETECTRON2_DATASETS with mini_cityscapes/ in it, registered. Not to be written to."""
    register_all(str(_datasets_once))
    return _datasets_once


@pytest.fixture
def own_datasets_root(_datasets_once, default_root, tmp_path):
    """A copy of it that the test may spoil."""
    root = tmp_path / "own"
    shutil.copytree(_datasets_once, root)
    register_all(str(root))
    return root


@pytest.fixture(scope="session")
def mini_coco_root(tmp_path_factory):
    """A directory with coco/ in it. Not to be written to."""
    root = tmp_path_factory.mktemp("datasets_coco")
    make_mini_coco(root, COCO_SPEC, show_progress=False)
    return root


@pytest.fixture
def own_coco_root(mini_coco_root, default_root, tmp_path):
    """A copy of it that the test may spoil, registered."""
    root = tmp_path / "own"
    shutil.copytree(mini_coco_root, root)
    register_all(str(root))
    return root


@pytest.fixture
def cfg(datasets_root):
    """Training on mini Cityscapes, without any augmentation but those a test switches on."""
    cfg = get_cfg()
    add_maskformer2_config(cfg)
    cfg.DATASETS.TRAIN = ("mini_cityscapes_fine_sem_seg_train",)
    cfg.DATASETS.TEST = ("mini_cityscapes_fine_sem_seg_val",)
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 19
    cfg.INPUT.FORMAT = "RGB"
    cfg.INPUT.MIN_SIZE_TRAIN = (96,)
    cfg.INPUT.RANDOM_FLIP = "none"
    cfg.INPUT.MIN_SIZE_TEST = 96
    cfg.SOLVER.IMS_PER_BATCH = 2
    cfg.DATALOADER.NUM_WORKERS = 0
    return cfg
