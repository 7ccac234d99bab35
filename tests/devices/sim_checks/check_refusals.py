"""What a device refuses, the simulated one refuses; and torch.cuda is out of bounds."""

import pytest
import torch
import torch.nn.functional as F
import torch_sdaa  # noqa: F401
from torch.cuda import synchronize as cuda_synchronize
from torch.cuda.amp import GradScaler as CudaGradScaler

x = torch.arange(4.0, device="sdaa")
y = torch.arange(4.0)


@pytest.mark.parametrize(
    "mix",
    [
        lambda: x + y,
        lambda: y + x,
        lambda: x.add_(y),
        lambda: torch.cat([y, x]),
        lambda: torch.stack([x, y]),
        lambda: x + x.to("sdaa:1"),
        lambda: F.linear(x[None], torch.ones(4, 4)),
        lambda: F.conv2d(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 3, 3, device="sdaa")),
        lambda: F.binary_cross_entropy_with_logits(x, y),
        lambda: torch.bmm(torch.ones(1, 1, 1, device="sdaa"), torch.ones(1, 1, 1)),
        lambda: y[torch.tensor([1], device="sdaa")],
        lambda: x.index_select(0, torch.tensor([1])),
        lambda: torch.where(x > 0, x, y),
    ],
)
def test_tensors_of_two_devices(mix):
    with pytest.raises(RuntimeError, match=r"(?i)expected all tensors|on the same device"):
        mix()


def test_numbers_may_be_on_the_cpu():
    number = torch.tensor(2.0)
    assert (x + number).device.type == (number * x).device.type == "sdaa"


def test_no_array_without_a_copy():
    with pytest.raises(TypeError, match="sdaa"):
        x.numpy()


@pytest.mark.parametrize(
    "call",
    [
        lambda: torch.cuda.is_available(),
        lambda: torch.cuda.device_count(),
        lambda: torch.cuda.current_device(),
        lambda: torch.cuda.set_device(0),
        lambda: torch.cuda.synchronize(),
        lambda: torch.cuda.empty_cache(),
        lambda: torch.cuda.memory.max_memory_allocated(),
        lambda: torch.cuda.manual_seed_all(0),
        lambda: torch.cuda.get_rng_state(),
        lambda: torch.cuda.Stream(),
        lambda: torch.cuda.Event(),
        lambda: torch.cuda.device(0),
        lambda: torch.cuda.amp.autocast(enabled=False),
        lambda: torch.cuda.amp.GradScaler(),
        lambda: CudaGradScaler(),
        lambda: torch.cuda.nvtx.range_push("x"),
    ],
)
def test_every_call_of_cuda(call):
    with pytest.raises(AssertionError, match=r"^torch\.cuda\.\S+ called by \S+check_refusals.py:"):
        call()


def test_torch_itself_may_call_cuda():
    torch.manual_seed(0)  # asks torch.cuda whether it is forked
    assert cuda_synchronize.__module__.startswith("torch.cuda")
    torch.amp.GradScaler("cuda", enabled=False)
