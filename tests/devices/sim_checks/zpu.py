"""A second accelerator that nobody made: another name, other collectives."""

import tempfile

import torch
import torch.distributed as dist
import torch_zpu  # noqa: F401

assert torch.zpu.device_count() == 2 and not hasattr(torch, "sdaa")
x = torch.ones(2, 2, device="zpu", requires_grad=True)
with torch.autocast("zpu", dtype=torch.bfloat16):
    y = x @ x
assert y.dtype == torch.bfloat16 and y.device == torch.device("zpu:0")
y.float().sum().backward()
assert x.grad.sum() == 16 and torch.Generator("zpu").device.type == "zpu"
torch.zpu._fail_next()
try:
    x + 1
except RuntimeError as error:
    assert str(error).startswith("zpu out of memory. Tried to allocate ")
else:
    raise AssertionError("memory was not full")
torch.zpu.set_device(1)
with tempfile.TemporaryDirectory() as folder:
    dist.init_process_group("zccl", init_method=f"file://{folder}/store", rank=0, world_size=1)
    dist.all_reduce(torch.ones(2, device="zpu"))
    assert dist.get_backend() == "zccl"
    dist.destroy_process_group()
print("ok")
