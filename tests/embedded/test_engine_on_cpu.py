"""What detectron2's engine does on CUDA only, and the embedded one on any device: AMP and DDP.

The training runs in processes of its own, so that it is the embedded one whatever the tests use.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import mask2former  # noqa: F401  (it decides which detectron2 there is)

# isort: split
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.engine import DefaultTrainer, hooks, launch
from detectron2.utils import comm
from torch import nn

ROOT = Path(__file__).parents[2]


class Halves(nn.Module):
    """Rank r fits the weight to r + 1; tells in which precision it computed."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(1, 1, bias=False)
        self.seen = []

    def forward(self, batch):
        y = self.linear(batch)
        self.seen.append(str(y.dtype))
        return {"loss_fit": ((y.float() - comm.get_rank() - 1) ** 2).mean()}


class Trainer(DefaultTrainer):
    @classmethod
    def build_model(cls, cfg):
        return Halves()

    @classmethod
    def build_train_loader(cls, cfg):
        return [torch.ones(1, 1)] * 20


def train(folder):
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.WEIGHTS = ""
    cfg.DATASETS.TEST = ()
    cfg.SOLVER.AMP.ENABLED = True
    cfg.SOLVER.MAX_ITER = 20
    cfg.SOLVER.BASE_LR = 0.2
    cfg.SOLVER.MOMENTUM = 0.0
    cfg.SOLVER.WEIGHT_DECAY = 0.0
    cfg.SOLVER.WARMUP_ITERS = 0
    cfg.SOLVER.STEPS = ()
    cfg.OUTPUT_DIR = folder
    trainer = Trainer(cfg)
    trainer.register_hooks([hooks.TorchMemoryStats(period=1)])  # there is nothing to tell
    trainer.resume_or_load(resume=False)
    trainer.train()
    model = trainer.model.module
    state = trainer.state_dict()["_trainer"]
    result = {
        "class": type(trainer.model).__name__,
        "weight": model.linear.weight.item(),
        "precisions": sorted(set(model.seen)),
        "state": sorted(state),
        "scale": state["grad_scaler"]["scale"],
    }
    Path(folder, f"rank{comm.get_rank()}.json").write_text(json.dumps(result))


def test_mixed_precision_over_two_processes_on_a_cpu(tmp_path):
    subprocess.run(
        [sys.executable, __file__, str(tmp_path)],
        env={
            **os.environ,
            "M2F_DETECTRON2": "embedded",
            "CUDA_VISIBLE_DEVICES": "",
            "PYTHONPATH": str(ROOT),
        },
        check=True,
    )
    first, second = (json.loads((tmp_path / f"rank{r}.json").read_text()) for r in range(2))
    assert first["class"] == second["class"] == "DistributedDataParallel"
    assert first["weight"] == second["weight"] == pytest.approx(1.5, abs=0.01)
    assert first["precisions"] == ["torch.float16"]
    assert first["state"] == ["grad_scaler", "iteration", "optimizer"]
    assert first["scale"] >= 1.0
    # Rank 0 alone writes; names are the model's, without the prefix of DistributedDataParallel.
    saved = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert list(saved["model"]) == ["linear.weight"]
    assert saved["model"]["linear.weight"].item() == first["weight"]


if __name__ == "__main__":
    launch(train, 2, dist_url="auto", args=(sys.argv[1],))
