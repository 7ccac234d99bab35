"""What the device layer says of this machine, and of machines it is told of."""

import sys
import types

import pytest
import torch

from mask2former import device as devices


@pytest.fixture
def fake_accelerator(monkeypatch):
    """A machine with two `sdaa` devices, as torch_sdaa would show them."""
    calls = []
    module = types.SimpleNamespace(
        is_available=lambda: True,
        device_count=lambda: 2,
        set_device=lambda device: calls.append(("set_device", device)),
        synchronize=lambda: calls.append("synchronize"),
        empty_cache=lambda: calls.append("empty_cache"),
        max_memory_allocated=lambda: 3 * 1024**2,
        calls=calls,
    )
    monkeypatch.setattr(torch, "sdaa", module, raising=False)
    return module


class FirstSdaa:
    type = "sdaa"

    def __str__(self):
        return "sdaa:0"


@pytest.fixture
def sdaa_device():
    # torch refuses to parse the name of a backend that is not registered.
    return types.SimpleNamespace(type="sdaa")


def test_an_accelerator_is_preferred_to_the_cpu(fake_accelerator):
    assert devices.best_device_type() == "sdaa"
    assert devices.device_count("sdaa") == 2


@pytest.mark.parametrize(
    "error", [OSError("lib.so:\n no such file"), ImportError(), RuntimeError()]
)
def test_a_plugin_that_is_broken_is_told_once_and_no_device(monkeypatch, caplog, error):
    def fail(name):
        raise error

    plugin = f"torch_sdaa_{type(error).__name__}"
    accelerator = devices.Accelerator("sdaa", plugin=plugin)
    monkeypatch.setattr(devices, "ACCELERATORS", [accelerator, devices.ACCELERATORS[-1]])
    monkeypatch.setattr(devices.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(devices.importlib, "import_module", fail)
    assert devices.resolve_device("auto") == torch.device("cpu")
    assert not devices.unknown_to_detectron2()
    why = "lib.so: no such file" if str(error) else type(error).__name__
    with pytest.raises(ValueError, match=rf"sees 0 sdaa .*\({plugin} cannot be imported: {why}\)"):
        devices.resolve_device("sdaa")
    assert [why in record.getMessage() for record in caplog.records] == [True]


def test_a_module_that_does_not_count_has_no_devices(fake_accelerator):
    del fake_accelerator.device_count, fake_accelerator.is_available
    assert devices.device_count("sdaa") == 0


def test_without_accelerators_it_is_the_cpu(monkeypatch):
    monkeypatch.setattr(devices, "device_count", lambda kind: int(kind == "cpu"))
    assert devices.resolve_device("auto") == torch.device("cpu")


def test_no_module_means_no_device():
    assert devices.device_count("sdaa") == 0


def test_a_module_that_only_counts_its_devices(fake_accelerator):
    del fake_accelerator.is_available  # as that of MPS in torch 2.4
    assert devices.device_count("sdaa") == 2
    fake_accelerator.device_count = lambda: 0
    assert devices.device_count("sdaa") == 0


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cuda:", "CPU", ""])
def test_unknown_names_are_refused(name):
    with pytest.raises(ValueError, match="set it to auto or one of sdaa, cuda, mps, cpu"):
        devices.resolve_device(name)


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(devices, "device_count", lambda kind: {"cuda": 1, "cpu": 1}.get(kind, 0))
    assert devices.resolve_device("cuda:0") == torch.device("cuda:0")
    with pytest.raises(ValueError, match=r"sees 1 cuda device\(s\); set it to auto or cuda"):
        devices.resolve_device("cuda:1")
    with pytest.raises(ValueError, match=r"sees 0 mps device\(s\)"):
        devices.resolve_device("mps")


def test_calls_reach_the_accelerator(fake_accelerator, sdaa_device):
    devices.set_device(sdaa_device)
    devices.synchronize(sdaa_device)
    devices.empty_cache(sdaa_device)
    assert fake_accelerator.calls == [("set_device", sdaa_device), "synchronize", "empty_cache"]
    assert devices.max_memory_mb(sdaa_device) == 3.0
    del fake_accelerator.max_memory_allocated
    assert devices.max_memory_mb(sdaa_device) is None


def test_cpu_needs_no_calls():
    cpu = torch.device("cpu")
    devices.set_device(cpu)
    devices.synchronize(cpu)
    devices.empty_cache(cpu)
    assert 10 < devices.max_memory_mb(cpu) < 1e6


def test_what_the_environment_says_is_told(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.delenv("SDAA_VISIBLE_DEVICES", raising=False)
    assert devices.visible_devices("cuda") == " (CUDA_VISIBLE_DEVICES=0,1)"
    assert devices.visible_devices("sdaa") == devices.visible_devices("cpu") == ""
    monkeypatch.setattr(devices, "device_count", lambda kind: {"cuda": 2, "cpu": 1}.get(kind, 0))
    with pytest.raises(ValueError, match=r"2 cuda device\(s\) \(CUDA_VISIBLE_DEVICES=0,1\); set"):
        devices.resolve_device("cuda:2")


def test_devices_that_detectron2_does_not_know(monkeypatch):
    asked = []

    def count(kind):
        asked.append(kind)
        return present.get(kind, 0)

    monkeypatch.setattr(devices, "device_count", count)
    present = {"cuda": 1, "cpu": 1}
    assert not devices.unknown_to_detectron2()
    present["sdaa"] = 4
    assert devices.unknown_to_detectron2()
    assert "cuda" not in asked  # its driver must not start before processes fork


def test_names(fake_accelerator, sdaa_device):
    assert devices.device_name(sdaa_device) == devices.device_name(torch.device("cpu")) == ""
    fake_accelerator.get_device_name = lambda device: f"SDAA of {device.type}"
    assert devices.device_name(sdaa_device) == "SDAA of sdaa"


def test_descriptions(fake_accelerator, monkeypatch):
    monkeypatch.delenv("SDAA_VISIBLE_DEVICES", raising=False)
    device = FirstSdaa()
    assert devices.describe(device) == "sdaa:0, 2 visible"
    monkeypatch.setenv("SDAA_VISIBLE_DEVICES", "2,3")
    fake_accelerator.get_device_name = lambda device: "SDAA"
    assert devices.describe(device) == "sdaa:0 (SDAA), 2 visible (SDAA_VISIBLE_DEVICES=2,3)"
    plugin = types.SimpleNamespace(__version__="3.2.0")
    monkeypatch.setitem(sys.modules, "torch_sdaa", plugin)
    monkeypatch.setattr(devices.importlib.util, "find_spec", lambda name: None)
    expected = "sdaa:0 (SDAA, torch_sdaa 3.2.0), 2 visible (SDAA_VISIBLE_DEVICES=2,3)"
    assert devices.describe(device) == expected
    assert devices.describe(torch.device("cpu")) == "cpu"


def test_seeds_reach_the_accelerator_and_the_cpu(fake_accelerator):
    fake_accelerator.manual_seed_all = lambda seed: fake_accelerator.calls.append(seed)
    devices.seed_all(7, "sdaa")
    drawn = torch.rand(3)
    assert fake_accelerator.calls == [7]
    torch.manual_seed(7)
    assert torch.equal(drawn, torch.rand(3))


def test_a_device_that_is_not_in_the_table_gets_what_runs_anywhere():
    assert devices.collectives_backend("xpu") == "gloo"
    assert not devices.supports_sync_batch_norm("xpu")
    assert not devices.has_fused_sampling("xpu")
    assert devices.operator_package("xpu") == ""


def test_a_plugin_with_amp_of_its_own_only(fake_accelerator):
    made = []
    fake_accelerator.amp = types.SimpleNamespace(
        autocast=lambda **arguments: made.append(arguments),
        GradScaler=lambda **arguments: made.append(arguments),
    )
    assert devices.amp_dtype("sdaa") == torch.float16
    devices.autocast("sdaa", torch.float16)
    devices.full_precision("sdaa")
    devices.grad_scaler("sdaa", torch.float16)
    assert made == [
        {"dtype": torch.float16, "enabled": True},
        {"enabled": False},
        {"enabled": True},
    ]


def test_backends():
    names = {kind: devices.collectives_backend(kind) for kind in ("sdaa", "cuda", "cpu")}
    assert names == {"sdaa": "tccl", "cuda": "nccl", "cpu": "gloo"}


def test_amp_dtypes():
    assert devices.amp_dtype("cpu") == torch.bfloat16
    assert devices.amp_dtype("cuda") == torch.float16
    assert devices.amp_dtype("cuda", "bfloat16") == torch.bfloat16
    with pytest.raises(ValueError, match=r"SOLVER\.AMP\.DTYPE='float16'; cpu has auto, bfloat16"):
        devices.amp_dtype("cpu", "float16")
    with pytest.raises(ValueError, match="'nn'"):
        devices.amp_dtype("cpu", "nn")


def test_autocast_and_the_region_without():
    x = torch.ones(2, 2)
    with devices.autocast("cpu", torch.bfloat16):
        assert (x @ x).dtype == torch.bfloat16
        with devices.full_precision("cpu"):
            assert (x @ x).dtype == torch.float32
    with devices.autocast("cpu", torch.bfloat16, enabled=False):
        assert (x @ x).dtype == torch.float32


def test_a_device_that_this_torch_has_no_autocast_for(monkeypatch):
    monkeypatch.setattr(torch.amp, "is_autocast_available", lambda kind: kind != "mps")
    monkeypatch.setattr(torch, "autocast", None)  # it raises, even to switch itself off
    with devices.full_precision("mps"):
        pass
    with pytest.raises(ValueError, match=r"SOLVER\.AMP\.ENABLED=True, but torch .* on mps"):
        devices.amp_dtype("mps")


def test_only_float16_is_scaled():
    assert not devices.grad_scaler("cpu", torch.bfloat16).is_enabled()
    assert devices.grad_scaler("cpu", torch.float16).is_enabled()


@pytest.mark.parametrize(
    "error, expected",
    [
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("sdaa out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 18 GB). Tried to"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("CUDA out of memory. Tried to allocate 2 GiB"), False),
    ],
)
def test_out_of_memory(error, expected):
    assert devices.is_out_of_memory(error) is expected


def test_out_of_memory_moves_to_the_cpu(monkeypatch):
    monkeypatch.setattr("mask2former.device.empty_cache", lambda device: None)
    calls = []

    def hungry(x):
        calls.append(x.device.type)
        if x.device.type != "cpu":
            raise RuntimeError("xpu out of memory. Tried to allocate 20.00 GiB")
        return x + 1

    class Elsewhere:
        device = torch.device("meta")

        def to(self, device):
            assert device == "cpu"
            return torch.tensor(1)

    assert devices.retry_on_cpu(hungry, x=Elsewhere()) == 2
    assert calls == ["meta", "meta", "cpu"]


def test_other_errors_pass_through():
    def broken(x):
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        devices.retry_on_cpu(broken, torch.zeros(1))
