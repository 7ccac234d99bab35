"""Four processes under tccl: every collective, and DDP in its four forms keeps the ranks equal."""

import os
import sys

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
import torch_sdaa  # noqa: F401
from torch import nn

SIZE = 4


def refused(call, text):
    try:
        call()
    except (RuntimeError, NotImplementedError) as error:
        assert text in str(error), error
    else:
        raise AssertionError(f"not refused: {text}")


def collectives(rank, device):
    def full(value, size=2):
        return torch.full((size,), float(value), device=device)

    total = full(rank)
    dist.all_reduce(total)
    assert total.tolist() == [6, 6]
    mean = full(rank).half()
    dist.all_reduce(mean, op=dist.ReduceOp.AVG)
    assert mean.tolist() == [1.5, 1.5]
    work = dist.all_reduce(total, op=dist.ReduceOp.MAX, async_op=True)
    assert work.wait() and total[0] == 6

    parts = [full(-1) for _ in range(SIZE)]
    dist.all_gather(parts, full(rank))
    assert [int(p[0]) for p in parts] == [0, 1, 2, 3]
    together = full(-1, 2 * SIZE)
    dist.all_gather_into_tensor(together, full(rank))
    assert together.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    own = full(-1)
    dist.reduce_scatter_tensor(own, torch.arange(8.0, device=device))
    assert own.tolist() == [8 * rank, 8 * rank + 4]
    dist.all_to_all(parts, [full(10 * rank + i) for i in range(SIZE)])
    assert [int(p[0]) for p in parts] == [10 * i + rank for i in range(SIZE)]
    dist.all_to_all_single(together, torch.arange(8.0, device=device) + 10 * rank)
    assert together[::2].tolist() == [10 * i + 2 * rank for i in range(SIZE)]

    dist.gather(full(rank), parts if rank == 2 else None, dst=2)
    assert rank != 2 or [int(p[0]) for p in parts] == [0, 1, 2, 3]
    dist.scatter(own, [full(i) for i in range(SIZE)] if rank == 1 else None, src=1)
    assert own[0] == rank
    reduced = full(1)
    dist.reduce(reduced, 3)
    assert reduced[0] == (SIZE if rank == 3 else 1)
    flag = torch.tensor([rank == 1], device=device)
    dist.broadcast(flag, 1)
    assert flag.item() is True
    if rank == 0:
        dist.send(full(5), 1)
    if rank == 1:
        dist.recv(own, 0)
        assert own.tolist() == [5, 5]

    objects = [None] * SIZE
    dist.all_gather_object(objects, {"rank": rank})
    assert [o["rank"] for o in objects] == [0, 1, 2, 3]
    shared = [f"of {rank}"]
    dist.broadcast_object_list(shared, src=2)
    assert shared == ["of 2"]
    dist.barrier()
    pair = dist.new_group([0, 1])
    if rank < 2:
        dist.all_reduce(own.fill_(1), group=pair)
        assert own[0] == 2
    on_cpu = torch.ones(2)
    dist.all_reduce(on_cpu, group=dist.new_group(backend="gloo"))
    assert on_cpu[0] == SIZE

    refused(lambda: dist.all_reduce(torch.ones(2)), "tccl takes tensors on sdaa")
    other = torch.ones(2, device=f"sdaa:{(rank + 1) % SIZE}")
    refused(lambda: dist.all_reduce(other), "in a process whose device is")
    images = torch.ones(2, 3, 4, 4, device=device)
    sync = nn.parallel.DistributedDataParallel(nn.SyncBatchNorm(3).to(device), [rank])
    refused(lambda: sync(images), "batch_norm_stats")


def train(rank, device, device_ids, is_mixed):
    torch.manual_seed(rank)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5)
    )
    ddp = nn.parallel.DistributedDataParallel(model.to(device), device_ids=device_ids)
    optimizer = torch.optim.AdamW(ddp.parameters(), 0.01)
    scaler = torch.amp.GradScaler("sdaa", enabled=is_mixed)
    for _ in range(4):
        images = torch.randn(2, 3, 8, 8, device=device)
        with torch.autocast("sdaa", dtype=torch.float16, enabled=is_mixed):
            loss = F.cross_entropy(ddp(images), torch.arange(2, device=device))
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    weights = torch.cat([p.detach().flatten() for p in model.parameters()])
    all_weights = [torch.empty_like(weights) for _ in range(SIZE)]
    dist.all_gather(all_weights, weights)
    assert all(torch.equal(all_weights[0], other) for other in all_weights)


def work(rank, file):
    torch.set_num_threads(1)
    rendezvous = {"init_method": f"file://{file}", "rank": rank, "world_size": SIZE}
    refused(lambda: dist.init_process_group("tccl", **rendezvous), "set_device before")
    torch.sdaa.set_device(rank)
    rendezvous["init_method"] += ".2"
    dist.init_process_group("tccl", **rendezvous)
    device = torch.device("sdaa", rank)
    collectives(rank, device)
    for device_ids in ([rank], None):
        for is_mixed in (False, True):
            train(rank, device, device_ids, is_mixed)
    dist.destroy_process_group()


if __name__ == "__main__":
    mp.start_processes(work, (os.path.join(sys.argv[1], "store"),), SIZE, start_method="spawn")
    print("all ranks equal")
