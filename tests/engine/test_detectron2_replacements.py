"""What stands for detectron2's own functions on devices that it does not know, on a CPU."""

from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from detectron2.engine import AMPTrainer
from detectron2.utils.events import EventStorage
from torch import nn

from mask2former.patch import amp, environment, memory, processes, torch_view


class Halves(nn.Module):
    """Two losses of a linear layer, and the type in which autocast computed it."""

    def __init__(self, as_dict):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(3, 2)
        self.as_dict = as_dict
        self.dtype = None

    def forward(self, x):
        y = self.linear(x)
        self.dtype = y.dtype
        losses = {"loss_a": y.float().square().mean(), "loss_b": y.float().sum()}
        return losses if self.as_dict else losses["loss_a"]


BATCHES = [torch.randn(4, 3, generator=torch.Generator().manual_seed(i)) for i in range(3)]


@pytest.fixture
def patched(monkeypatch):
    original = AMPTrainer.__init__

    def init(self, *args, **kwargs):
        amp.init(original, self, *args, **kwargs)

    monkeypatch.setattr(AMPTrainer, "__init__", init)
    monkeypatch.setattr(AMPTrainer, "run_step", amp.run_step)


@pytest.mark.parametrize("as_dict", [True, False])
@pytest.mark.parametrize("options", [{}, {"zero_grad_before_forward": True}])
def test_mixed_precision_steps(patched, as_dict, options):
    model = Halves(as_dict)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = AMPTrainer(
        model, BATCHES, optimizer, precision=torch.bfloat16, log_grad_scaler=True, **options
    )
    trainer.train(0, len(BATCHES))
    assert model.dtype == torch.bfloat16
    latest = trainer.storage.latest()
    assert latest["total_loss"][1] == 2 and latest["[metric]grad_scaler"] == (1.0, 2)

    expected = Halves(as_dict)
    optimizer = torch.optim.SGD(expected.parameters(), lr=0.1)
    for batch in BATCHES:
        with torch.autocast("cpu", torch.bfloat16):
            losses = expected(batch)
        total = sum(losses.values()) if as_dict else losses
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert torch.equal(model.linear.weight, expected.linear.weight)


def test_metrics_are_written_in_the_background(patched):
    model = Halves(as_dict=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = AMPTrainer(model, BATCHES, optimizer, precision=torch.bfloat16)
    trainer.async_write_metrics = True
    written = []

    class Executor:
        def submit(self, function, losses, data_time, iter):
            written.append((sorted(losses), data_time >= 0, iter))

    trainer.concurrent_executor = Executor()
    with EventStorage(0) as trainer.storage:
        trainer.run_step()
    assert written == [(["loss_a", "loss_b"], True, 0)]


def test_scaler_is_the_one_that_was_given_or_of_the_device(patched):
    model = Halves(as_dict=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    given = torch.amp.GradScaler("cpu", init_scale=2.0)
    assert AMPTrainer(model, BATCHES, optimizer, grad_scaler=given).grad_scaler is given
    scaler = AMPTrainer(model, BATCHES, optimizer).grad_scaler
    assert scaler.is_enabled() and scaler.scale(torch.ones(1)).device.type == "cpu"


def test_a_model_left_in_eval_mode_is_noticed(patched):
    model = Halves(as_dict=True)
    trainer = AMPTrainer(model, BATCHES, torch.optim.SGD(model.parameters(), lr=0.1))
    model.eval()
    with pytest.raises(AssertionError, match="eval mode"):
        trainer.run_step()


@pytest.fixture
def called(monkeypatch):
    """What a worker does on a machine with two devices."""
    called = []
    monkeypatch.setattr("mask2former.device.best_device_type", lambda: "sdaa")
    monkeypatch.setattr("mask2former.device.device_count", lambda kind: 2)
    monkeypatch.setattr(processes, "join", lambda *args: called.append(args))
    return called


def test_worker_joins_then_works(called):
    seconds = timedelta(seconds=5)
    processes.run_worker(
        1, lambda *args: called.append(args), 4, 2, 1, "tcp://a:1", ("x", 2), seconds
    )
    assert called == [(1, 3, 4, 2, "tcp://a:1", "sdaa", seconds), ("x", 2)]


def test_more_workers_than_devices_are_refused(called, monkeypatch):
    monkeypatch.setenv("SDAA_VISIBLE_DEVICES", "0,1")
    expected = r"3 processes, but this machine has 2 sdaa device\(s\) \(SDAA_VISIBLE_DEVICES=0,1\)"
    with pytest.raises(ValueError, match=expected):
        processes.run_worker(0, called.append, 3, 3, 0, "tcp://a:1", ())
    assert called == []


def test_device_without_collectives_leaves_several_processes_to_the_cpu(called, monkeypatch):
    monkeypatch.setattr("mask2former.device.best_device_type", lambda: "mps")
    processes.run_worker(2, lambda: None, 3, 3, 0, "tcp://a:1", ())
    assert called == [(2, 2, 3, 3, "tcp://a:1", "cpu", processes.TIMEOUT)]


@pytest.mark.parametrize("backend, is_world", [("gloo", True), ("cpu:gloo", False)])
def test_objects_go_by_gloo(tmp_path, backend, is_world):
    for world in ("first", "second"):
        file = f"file://{tmp_path}/{world}"
        dist.init_process_group(backend, init_method=file, rank=0, world_size=1)
        group = processes.object_group()
        assert dist.get_backend(group) == "gloo"
        assert (group is dist.group.WORLD) == is_world and processes.object_group() is group
        dist.destroy_process_group()


def test_parallel_models_name_no_device_unless_told():
    def original(model, **kwargs):
        return kwargs

    model = nn.Linear(1, 1)
    assert processes.create_ddp_model(original, model) == {"device_ids": None}
    options = {"device_ids": [1], "fp16_compression": True}
    assert processes.create_ddp_model(original, model, **options) == options


def test_environment_begins_with_the_device(monkeypatch):
    monkeypatch.setattr("mask2former.device.describe", lambda device: f"{device} (NAME)")
    monkeypatch.setattr("mask2former.device.best_device_type", lambda: "xpu")
    assert environment.collect_env_info(lambda: "versions") == "accelerator: xpu (NAME)\nversions"


def test_functions_that_are_tried_again_keep_their_name():
    def double(x, y):
        """Twice."""
        return x * 2 + y

    tried = memory.retry_if_out_of_memory(double)
    assert (tried.__name__, tried.__doc__, tried(3, y=1)) == ("double", "Twice.", 7)


def test_workers_of_a_loader_seed_no_device(monkeypatch):
    seeds = []
    monkeypatch.setattr("mask2former.device.best_device_type", lambda: "sdaa")
    monkeypatch.setattr("mask2former.device.seed_all", lambda *args: seeds.append(args))
    torch_view.BestDevice().manual_seed_all("5")
    monkeypatch.setattr(torch_view, "get_worker_info", object)
    torch_view.BestDevice().manual_seed_all("6")
    assert seeds == [(5, "sdaa")]
