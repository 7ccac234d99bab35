"""Which process one is, and exchanging objects and losses, in one process and in two.

A spawned process inherits sys.path, and with it the detectron2 that the tests run on.
"""

import json
from datetime import timedelta

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.utils import comm

WORLD_SIZE = 2
NUM_PER_MACHINE = 1


def test_one_process_needs_no_torch_distributed():
    assert not dist.is_initialized()
    assert (comm.get_world_size(), comm.get_rank()) == (1, 0)
    assert (comm.get_local_size(), comm.get_local_rank()) == (1, 0)
    assert comm.is_main_process()
    comm.synchronize()
    data = {"a": [1]}
    assert comm.all_gather(data) == [data]
    assert comm.gather(data) == [data]
    losses = {"loss": torch.tensor(2.0)}
    assert comm.reduce_dict(losses) == losses
    np.random.seed(3)
    seed = comm.shared_random_seed()
    np.random.seed(3)
    assert comm.shared_random_seed() == seed


def talk(rank, folder):
    """What a process sees, written to a file of its own."""
    address = f"file://{folder}/meeting"
    dist.init_process_group(
        "cpu:gloo",  # is not named gloo, as those of accelerators are not
        init_method=address,
        rank=rank,
        world_size=WORLD_SIZE,
        timeout=timedelta(seconds=60),
    )
    comm.create_local_process_group(NUM_PER_MACHINE)
    np.random.seed(rank)
    losses = {"b": torch.tensor(float(rank)), "a": torch.tensor(10.0)}
    if rank == 1:  # in another order than elsewhere
        losses = dict(reversed(losses.items()))
    seen = {
        "world": [comm.get_world_size(), comm.get_rank(), comm.is_main_process()],
        "local": [comm.get_local_size(), comm.get_local_rank()],
        "all_gather": comm.all_gather({"rank": rank, "long": "x" * 1000**rank}),
        "gather": comm.gather((rank, None)),
        "gather_to_1": comm.gather(rank, dst=1),
        "local_gather": comm.all_gather(rank, group=comm.get_local_process_group()),
        "mean": {name: value.item() for name, value in comm.reduce_dict(losses).items()},
        "sum": {
            name: value.item() for name, value in comm.reduce_dict(losses, average=False).items()
        },
        "seed": comm.shared_random_seed(),
        "tensors": [x.tolist() for x in comm.all_gather(torch.full((2,), rank))],
    }
    marks = []
    for mark in range(3):  # nobody is more than one mark ahead
        (folder / f"{rank}.mark{mark}").touch()
        comm.synchronize()
        marks.append(len(list(folder.glob(f"*.mark{mark}"))))
    (folder / f"rank{rank}.json").write_text(json.dumps({**seen, "marks": marks}))
    comm.synchronize()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What each rank saw."""
    folder = tmp_path_factory.mktemp("comm")
    mp.spawn(talk, args=(folder,), nprocs=WORLD_SIZE)
    return [json.loads((folder / f"rank{r}.json").read_text()) for r in range(WORLD_SIZE)]


def test_ranks_and_sizes(seen):
    assert [s["world"] for s in seen] == [[2, 0, True], [2, 1, False]]
    assert [s["local"] for s in seen] == [[1, 0], [1, 0]]


def test_gathering(seen):
    assert all([x["rank"] for x in s["all_gather"]] == [0, 1] for s in seen)
    assert all([len(x["long"]) for x in s["all_gather"]] == [1, 1000] for s in seen)
    assert [s["gather"] for s in seen] == [[[0, None], [1, None]], []]
    assert [s["gather_to_1"] for s in seen] == [[], [0, 1]]
    assert all(s["tensors"] == [[0, 0], [1, 1]] for s in seen)
    assert [s["local_gather"] for s in seen] == [[0], [1]]


def test_reducing(seen):
    assert seen[0]["mean"] == {"a": 10.0, "b": 0.5}
    assert seen[0]["sum"] == {"a": 20.0, "b": 1.0}


def test_the_seed_is_shared(seen):
    np.random.seed(0)
    assert {s["seed"] for s in seen} == {np.random.randint(2**31)}


def test_synchronizing(seen):
    assert [s["marks"] for s in seen] == [[2, 2, 2]] * 2
