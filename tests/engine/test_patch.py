"""Scripts that know nothing of this project build models of its configs."""

import detectron2.engine.defaults
import detectron2.modeling
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.engine import DefaultPredictor
from detectron2.modeling import META_ARCH_REGISTRY
from torch import nn

from mask2former.config import load_config
from mask2former.patch import extend_build_model


class DeviceProbe(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, inputs):
        return [{"sem_seg": x["image"]} for x in inputs]


@pytest.fixture
def cfg():
    META_ARCH_REGISTRY._obj_map["DeviceProbe"] = DeviceProbe
    cfg = load_config("quick_start.yaml", ["MODEL.META_ARCHITECTURE", "DeviceProbe"])
    yield cfg
    del META_ARCH_REGISTRY._obj_map["DeviceProbe"]


def cpu_is_best(monkeypatch):
    found = "mask2former.patch.build_model.resolve_device"
    monkeypatch.setattr(found, lambda name: torch.device("cpu"))


def test_auto_becomes_a_device(cfg, monkeypatch):
    extend_build_model()
    cpu_is_best(monkeypatch)
    cfg.freeze()
    for build_model in (
        detectron2.modeling.build_model,
        detectron2.engine.defaults.build_model,
    ):
        config = cfg.clone()
        config.freeze()
        assert next(build_model(config).parameters()).device.type == "cpu"
        assert config.MODEL.DEVICE == "cpu" and config.is_frozen()


def test_patching_twice_is_patching_once():
    extend_build_model()
    once = detectron2.modeling.build_model
    extend_build_model()
    assert detectron2.modeling.build_model is once


def test_predictor_of_detectron2_takes_auto(cfg, monkeypatch):
    extend_build_model()
    cpu_is_best(monkeypatch)
    image = torch.zeros(8, 16, 3, dtype=torch.uint8).numpy()
    assert DefaultPredictor(cfg)(image)["sem_seg"].shape[0] == 3


def test_configs_without_our_keys_build(cfg):
    plain = get_cfg()
    plain.MODEL.META_ARCHITECTURE, plain.MODEL.DEVICE = "DeviceProbe", "cpu"
    assert isinstance(detectron2.modeling.build_model(plain), DeviceProbe)
