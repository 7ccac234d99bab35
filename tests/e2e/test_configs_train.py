"""Every official config with a ResNet-50 or a Swin-T trains two steps on drawn data and is judged.

The networks are the real ones; pictures, crops and datasets are small.
"""

import json
import os
import shutil

import pytest
import torch
from official_configs import OFFICIAL

from mask2former.config import load_config
from mask2former.data.datasets import register_all
from mask2former.data.mini.ade20k import make_mini_ade20k, make_mini_ade20k_full
from mask2former.data.mini.cityscapes import ensure_mini_cityscapes
from mask2former.data.mini.coco import make_mini_coco
from mask2former.data.mini.maker import MiniSpec
from mask2former.data.mini.mapillary_vistas import make_mini_mapillary_vistas
from mask2former.engine import argument_parser, main

NAMES = [name for name in OFFICIAL if "R50" in name or "swin_tiny" in name]

SMALL = {
    "MODEL.DEVICE": "cpu",
    "MODEL.WEIGHTS": "",
    "INPUT.MIN_SIZE_TRAIN": "(64,)",
    "INPUT.MAX_SIZE_TRAIN": "128",
    "INPUT.MIN_SIZE_TEST": "64",
    "INPUT.MAX_SIZE_TEST": "128",
    "INPUT.IMAGE_SIZE": "64",
    "SOLVER.IMS_PER_BATCH": "2",
    "SOLVER.MAX_ITER": "2",
    "SOLVER.AMP.ENABLED": "False",
    "DATALOADER.NUM_WORKERS": "0",
    "TEST.EVAL_PERIOD": "0",
}


@pytest.fixture(scope="module")
def layouts(tmp_path_factory):
    """All datasets of the official configs, in their real layouts."""
    root = tmp_path_factory.mktemp("layouts")
    spec = MiniSpec(height=64, width=96, num_train=4, num_val=2)
    for make in (
        make_mini_ade20k,
        make_mini_ade20k_full,
        make_mini_coco,
        make_mini_mapillary_vistas,
    ):
        make(root, spec, show_progress=False)
    streets = MiniSpec(height=64, width=128, num_train=4, num_val=2)
    ensure_mini_cityscapes(root / "cityscapes", streets, show_progress=False)
    register_all(str(root))
    yield root
    register_all(os.getenv("DETECTRON2_DATASETS", "datasets"))


@pytest.fixture
def output(tmp_path):
    yield tmp_path / "output"
    shutil.rmtree(tmp_path / "output", ignore_errors=True)  # 0.6 GB of weights


@pytest.mark.parametrize("name", NAMES)
def test_trains_and_is_judged(name, layouts, output):
    opts = SMALL | {"OUTPUT_DIR": str(output), "INPUT.CROP.SIZE": "(64, 64)"}
    if "coco-panoptic" in name:
        opts["INPUT.CROP.SIZE"] = "(32, 48)"  # a range
    if load_config(name).INPUT.SIZE_DIVISIBILITY > 0:
        opts["INPUT.SIZE_DIVISIBILITY"] = "64"
    words = [word for pair in opts.items() for word in pair]
    main(argument_parser().parse_args(["--config-file", name, *words]))

    lines = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    losses = [line["total_loss"] for line in lines if "total_loss" in line]
    assert len(losses) == 2 and all(map(torch.isfinite, torch.tensor(losses)))
    results = json.loads((output / "inference" / "results.json").read_text())
    assert set(results) >= expected_tasks(name), results
    assert (output / "model_final.pth").is_file()


def expected_tasks(name):
    """What the config's evaluation is about, by its path and what it switches on."""
    if "panoptic" not in name:
        return {"segm"} if "instance" in name else {"sem_seg"}
    test = load_config(name).MODEL.MASK_FORMER.TEST
    switches = {"SEMANTIC_ON": "sem_seg", "INSTANCE_ON": "segm", "PANOPTIC_ON": "panoptic_seg"}
    return {task for switch, task in switches.items() if test[switch]}
