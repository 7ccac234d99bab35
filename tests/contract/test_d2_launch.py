"""Several processes: how they are started and connected, and how they train together."""

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from detectron2.engine import SimpleTrainer, create_ddp_model, hooks, launch
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import nn

CPU = {"device_ids": None}  # what DistributedDataParallel wants for a model on a CPU


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    """These tests are about processes on a CPU, wherever they run."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def note(folder, **values):
    Path(folder, f"rank{comm.get_rank()}.json").write_text(json.dumps(values))


def disconnect():
    """Leave together: a process that others still talk to would make them fail."""
    comm.synchronize()
    dist.destroy_process_group()


def notes(folder):
    return [json.loads(p.read_text()) for p in sorted(Path(folder).iterdir())]


def train_together(folder):
    """Rank r fits w to r + 1 with the gradients averaged, so that w goes to 1.5."""
    rank = comm.get_rank()
    torch.manual_seed(rank)
    model = nn.Linear(1, 1, bias=False)
    initial = model.weight.item()
    ddp = create_ddp_model(model, **CPU)
    started_with = model.weight.item()
    target = torch.tensor([[rank + 1.0]])
    evaluated = []

    class Loss(nn.Module):
        def __init__(self):
            super().__init__()
            self.ddp = ddp

        def forward(self, x):
            return {"loss_fit": ((self.ddp(x) - target) ** 2).sum(), "loss_rank": x.sum() * rank}

    optimizer = torch.optim.SGD(model.parameters(), lr=0.25)
    trainer = SimpleTrainer(Loss(), [torch.ones(1, 1)] * 8, optimizer)
    trainer.register_hooks([hooks.EvalHook(0, lambda: evaluated.append(1))])
    trainer.train(0, 8)
    latest = trainer.storage.latest()
    note(
        folder,
        rank=rank,
        local=[comm.get_local_rank(), comm.get_local_size()],
        world_size=comm.get_world_size(),
        is_ddp=type(ddp).__name__,
        initial=initial,
        started_with=started_with,
        weight=model.weight.item(),
        loss_fit=latest.get("loss_fit"),
        loss_rank=latest.get("loss_rank"),
        has_data_time="data_time" in latest,
        rank_data_time=latest["rank_data_time"][1],
        evaluated=len(evaluated),
        gathered=comm.gather({"rank": rank}),
    )
    disconnect()


def fail_on_one_rank(folder):
    """Rank 0, which gathers the losses, sees one of rank 1 that is not finite."""
    rank = comm.get_rank()
    loss = torch.tensor(float("nan") if rank == 1 else 1.0)
    with EventStorage(0) as storage:
        expected = pytest.raises(FloatingPointError, match="iteration=4")
        with expected if rank == 0 else nullcontext():
            SimpleTrainer.write_metrics({"loss": loss}, 1.0 + rank, 4)
    note(folder, data_time=storage.latest().get("data_time"))
    disconnect()
    if rank == 1:
        raise KeyError("rank 1 is broken")


def test_one_process_is_this_one(tmp_path):
    def main(*args):  # a closure could not be sent to another process
        note(tmp_path, world_size=comm.get_world_size(), args=args)

    launch(main, 1, args=(1, "two"))
    assert notes(tmp_path) == [{"world_size": 1, "args": [1, "two"]}]


def test_one_process_gets_the_model_itself():
    model = nn.Linear(1, 1)
    assert create_ddp_model(model) is model


def test_two_processes_train_as_one(tmp_path):
    launch(train_together, 2, dist_url="auto", args=(tmp_path,))
    first, second = notes(tmp_path)
    for rank, result in enumerate((first, second)):
        assert result["rank"] == rank
        assert result["local"] == [rank, 2]
        assert result["world_size"] == 2
        assert result["is_ddp"] == "DistributedDataParallel"
        assert result["weight"] == pytest.approx(1.5, abs=0.01)
        assert result["started_with"] == first["initial"]  # DDP sends rank 0's weights
        assert result["rank_data_time"] == 7
        assert result["evaluated"] == 1
    assert first["initial"] != second["initial"]
    assert first["weight"] == second["weight"]
    # Rank 0 has the means: of (w - 1)^2 and (w - 2)^2 at about 1.5, and of the losses 0 and 1.
    assert first["loss_fit"] == [pytest.approx(0.25, abs=0.01), 7]
    assert first["loss_rank"] == [0.5, 7]
    assert first["has_data_time"] and not second["has_data_time"]
    assert second["loss_fit"] is None
    assert first["gathered"] == [{"rank": 0}, {"rank": 1}]
    assert second["gathered"] == []


def test_a_failure_in_one_process_ends_the_launch(tmp_path):
    with pytest.raises(torch.multiprocessing.ProcessRaisedException, match="rank 1 is broken"):
        launch(fail_on_one_rank, 2, dist_url="auto", args=(tmp_path,))
    assert notes(tmp_path) == [{"data_time": [2.0, 4]}, {"data_time": None}]


def test_auto_is_for_one_machine():
    with pytest.raises((AssertionError, ValueError), match="auto"):
        launch(fail_on_one_rank, 1, num_machines=2, dist_url="auto")
