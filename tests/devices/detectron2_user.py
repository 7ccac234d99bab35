"""A script of somebody who uses detectron2, and has it imported before this project.

Usage: detectron2_user.py FOLDER. Trains on the CPU, on the device, and on it in two processes;
leaves in FOLDER one_process.json and rank<N>.json.
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from detectron2.config import get_cfg
from detectron2.data import build_detection_test_loader, build_detection_train_loader
from detectron2.engine import (
    AMPTrainer,
    DefaultTrainer,
    default_argument_parser,
    default_setup,
    hooks,
    launch,
)
from detectron2.evaluation import DatasetEvaluator
from detectron2.layers import get_norm
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils import comm
from detectron2.utils.memory import retry_if_cuda_oom
from torch import nn

import mask2former  # noqa: F401

MEGABYTE = 2**20


@META_ARCH_REGISTRY.register()
class BrightOrDark(nn.Module):
    """Tells pictures of large values from those of small ones."""

    def __init__(self, cfg):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = get_norm("SyncBN", 4)
        self.out = nn.Linear(4, 2)
        self.seen = set()
        self.to(torch.device(cfg.MODEL.DEVICE))

    def forward(self, batch):
        device = self.out.weight.device
        images = torch.stack([sample["image"] for sample in batch]).to(device)
        features = self.conv(images)
        logits = self.out(self.norm(features).relu().mean((2, 3)))
        if not self.training:
            return [{"label": x} for x in logits.argmax(1)]
        self.seen |= {str(features.dtype), features.device.type}
        labels = torch.tensor([sample["label"] for sample in batch], device=device)
        return {"loss_label": nn.functional.cross_entropy(logits.float(), labels)}


def sample(label):
    return {"image": torch.rand(3, 8, 8) + label - 1, "label": label}


class Accuracy(DatasetEvaluator):
    def reset(self):
        self.found = []

    def process(self, inputs, outputs):
        self.found += [int(o["label"]) == i["label"] for i, o in zip(inputs, outputs)]

    def evaluate(self):
        found = [one for process in comm.all_gather(self.found) for one in process]
        return {"task": {"accuracy": sum(found) / len(found), "number": len(found)}}


class Trainer(DefaultTrainer):
    @classmethod
    def build_train_loader(cls, cfg):
        return build_detection_train_loader(
            [0, 1] * 8,
            mapper=sample,
            total_batch_size=4,
            aspect_ratio_grouping=False,
            num_workers=1,
        )

    @classmethod
    def build_test_loader(cls, cfg, dataset_name):
        return build_detection_test_loader([0, 1] * 3, mapper=sample)

    @classmethod
    def build_evaluator(cls, cfg, dataset_name):
        return Accuracy()


def train(folder, device, args):
    cfg = get_cfg()
    cfg.merge_from_list(
        [
            *("MODEL.DEVICE", device),
            *("MODEL.META_ARCHITECTURE", "BrightOrDark"),
            *("MODEL.WEIGHTS", ""),
            *("DATASETS.TEST", ("pictures",)),
            *("TEST.EXPECTED_RESULTS", [["task", "number", 6, 0]]),
            *("SOLVER.AMP.ENABLED", True),
            *("SOLVER.MAX_ITER", 12),
            *("SOLVER.STEPS", ()),
            *("SOLVER.WARMUP_ITERS", 0),
            *("SOLVER.BASE_LR", 0.3),
            *("FLOAT32_PRECISION", "high"),
            *("SEED", 1),
            *("OUTPUT_DIR", str(folder)),
        ]
    )
    default_setup(cfg, args)
    trainer = Trainer(cfg)
    assert type(trainer._trainer) is AMPTrainer
    trainer.register_hooks([hooks.TorchMemoryStats(period=6, max_runs=1)])
    results = trainer.train()
    return trainer, results


def describe(trainer, results):
    model = getattr(trainer.model, "module", trainer.model)
    return {
        "device": str(model.out.weight.device),
        "seen": sorted(model.seen),
        "norm": type(model.norm).__name__,
        "scale": trainer._trainer.grad_scaler.get_scale(),
        "results": results,
    }


def alone(folder, args):
    """What one process does."""
    found = [describe(*train(folder / "cpu", "cpu", args))]
    del torch.sdaa.get_amp_supported_dtype  # as in older plugins, which torch.autocast cannot ask
    found.append(describe(*train(folder / "older", "auto", args)))
    (folder / "one_process.json").write_text(json.dumps(found))


def together(folder, args):
    """What each of several processes does."""
    trainer, results = train(folder, "auto", args)
    rank = comm.get_rank()
    weights = torch.cat([p.detach().flatten() for p in trainer.model.parameters()]).tolist()
    found = {
        **describe(trainer, results),
        "backend": dist.get_backend(),
        "same_weights": all(other == weights for other in comm.all_gather(weights)),
        "all_gather": comm.all_gather(("rank", rank)),
        "gather": [sorted(one) for one in comm.gather({rank}, dst=1)],
        "retried": retry(),
    }
    comm.synchronize()
    (folder / f"rank{rank}.json").write_text(json.dumps(found))


def retry():
    """Where a function ends up that runs out of memory once, and twice."""
    double = retry_if_cuda_oom(lambda x: x * 2)
    found = []
    for times in (1, 2):
        x = torch.ones(MEGABYTE, device=torch.device("sdaa", comm.get_rank()))
        torch.sdaa._fail_next(MEGABYTE, times, 0)
        y = double(x)
        found.append([y.device.type, y.sum().item()])
    return found


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    args = default_argument_parser().parse_args([])
    alone(folder, args)
    launch(together, 2, dist_url="auto", args=(folder, args))
