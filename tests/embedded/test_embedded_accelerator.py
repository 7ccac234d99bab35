"""The embedded detectron2 finds the accelerator that a plugin of torch brings, by no name."""

import types

import mask2former  # noqa: F401  (it decides which detectron2 there is)

# isort: split
import pytest
import torch
import torch.distributed as dist
from detectron2.engine import launch
from detectron2.utils import _accelerator
from detectron2.utils.collect_env import collect_env_info


@pytest.fixture
def plugin(monkeypatch):
    """torch.xyz with two devices and collectives of its own."""
    module = types.SimpleNamespace(is_available=lambda: True, device_count=lambda: 2)
    monkeypatch.setattr(torch._C, "_get_privateuse1_backend_name", lambda: "xyz")
    monkeypatch.setattr(torch, "xyz", module, raising=False)
    monkeypatch.setitem(dist.Backend.default_device_backend_map, "xyz", "xyzccl")
    return module


def test_without_any_it_is_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert _accelerator.device_type() == "cpu"
    assert _accelerator.module() is None
    assert _accelerator.collectives_backend() == "gloo"


def test_a_plugin_comes_first(plugin, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert _accelerator.device_type() == "xyz"
    assert _accelerator.module() is plugin
    assert _accelerator.collectives_backend() == "xyzccl"
    plugin.is_available = lambda: False
    assert _accelerator.device_type() == "cuda"


def test_more_processes_than_devices_are_refused(plugin):
    with pytest.raises(ValueError, match=r"3 processes asked for, .* 2 xyz device\(s\)"):
        launch(print, 3, dist_url="auto")


def test_devices_are_listed_by_name_if_they_have_one(plugin):
    assert "of unknown name" in collect_env_info()
    plugin.get_device_name = lambda index: f"XYZ number {index}"
    assert "XYZ number 1" in collect_env_info()


def test_mixed_precision_of_a_plugin_that_torch_cannot_ask(plugin):
    asked = []
    plugin.amp = types.SimpleNamespace(
        autocast=lambda dtype: asked.append(dtype), GradScaler=lambda: asked.append("scaler")
    )
    _accelerator.autocast("xyz", torch.float16)
    _accelerator.grad_scaler("xyz")
    assert asked == [torch.float16, "scaler"]
    assert isinstance(_accelerator.autocast("cpu", torch.bfloat16), torch.autocast)
