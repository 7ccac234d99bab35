"""cuda_migrate, the oldest mixed precision, and a choice of devices, in one process.

The argument is a file for the weights of a model on the device."""

import sys

import torch
import torch_sdaa  # noqa: F401
from torch.sdaa.amp import GradScaler, autocast

assert torch.sdaa.device_count() == 2
assert torch.sdaa.get_device_name(1).endswith(" 2")

# cuda_migrate: torch.cuda answers for the device
assert torch.cuda.is_available() and torch.cuda.device_count() == 2
torch.cuda.set_device(1)
assert torch.sdaa.current_device() == 1
assert torch.ones(2).cuda().device == torch.device("sdaa:1")
assert torch.nn.Linear(1, 1).cuda().weight.device.type == "sdaa"
torch.cuda.synchronize()

# torch.autocast and torch.amp.GradScaler do not know the device; its own module does
x = torch.ones(2, 2, device="sdaa")
for call in (lambda: torch.autocast("sdaa"), lambda: torch.amp.GradScaler("sdaa")):
    try:
        call()
    except (AssertionError, RuntimeError) as error:
        print(f"refused: {error}")
    else:
        raise AssertionError("the new spelling is not refused")
with autocast(), torch.cuda.amp.autocast():
    assert (x @ x).dtype == torch.float16
assert GradScaler().scale(x.sum()).item() == 4 * 65536

# out of memory at the second and third allocation of 4 KB
torch.zeros(1024, device="sdaa")
for _ in range(2):
    try:
        torch.zeros(1024, device="sdaa")
    except RuntimeError as error:
        print(error)
    else:
        raise AssertionError("memory was not full")
torch.zeros(1024, device="sdaa")
torch.cuda.manual_seed_all(3)
torch.sdaa.empty_cache()
model = torch.nn.Linear(2, 2).to("sdaa:1")
torch.nn.init.ones_(model.weight)
torch.save(model.state_dict(), sys.argv[1])
print("ok")
