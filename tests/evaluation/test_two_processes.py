"""Two processes have the numbers that one has, and save the same predictions."""

import json

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.utils import comm
from saved_predictions import config, save

from mask2former.data.datasets import register_all

ALL = "sem_seg", "instances", "panoptic_seg"
STREETS = "mini_cityscapes_fine_panoptic_val"
# dataset and judge -> the images of each process
SHARES = {
    (STREETS, "fast"): ((2,), (0, 1, 0)),  # one is predicted twice
    (STREETS, "reference"): ((2,), (0, 1, 0)),
    ("coco_2017_val_panoptic", "fast"): ((), (1, 2, 0, 1)),  # a process has nothing
    ("mapillary_vistas_panoptic_val", "fast"): ((2,), (0, 1)),
}


def evaluate_shares(rank, root, folder):
    torch.set_num_threads(1)
    register_all(str(root))
    dist.init_process_group("gloo", f"file://{folder}/rendezvous", world_size=2, rank=rank)
    comm.create_local_process_group(2)
    results = {
        (name, judge): save(config(name, *ALL, judge=judge), folder / judge, shares[rank])
        for (name, judge), shares in SHARES.items()
    }
    torch.save(results, folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def test_two_processes_agree_with_one(minis, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    two.mkdir()
    mp.spawn(evaluate_shares, (minis, two), nprocs=2)
    first, second = (torch.load(two / f"{rank}.pt", weights_only=False) for rank in range(2))
    for name, judge in SHARES:
        alone = save(config(name, *ALL, judge=judge), one / judge)
        assert not second[name, judge] and first[name, judge].keys() == alone.keys()
        for task, metrics in alone.items():
            together = first[name, judge][task]
            assert together == pytest.approx(metrics, nan_ok=True), (name, judge, task)
            assert 2 < next(iter(metrics.values())) < 95
        saved, expected = (files_of(f / judge / "predictions" / name) for f in (two, one))
        assert len(expected) > 5 and saved.keys() == expected.keys()
        for path in expected:
            assert saved[path] == expected[path], (name, judge, path)


def files_of(folder):
    """Path -> content; JSONs as sorted lists, because processes write in any order."""
    contents = {}
    for path in (path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        if path.suffix == ".json":
            entries = json.loads(content)
            entries = entries if isinstance(entries, list) else entries["annotations"]
            content = sorted(map(json.dumps, entries))
        contents[str(path.relative_to(folder))] = content
    return contents
