"""torch.sdaa: devices, memory, random numbers, streams, files."""

import copy
import os
import pickle
import sys

import pytest
import torch
import torch_sdaa  # noqa: F401
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


@pytest.fixture(autouse=True)
def first_device():
    torch.sdaa.set_device(0)
    yield
    torch.sdaa._fail_next(count=0)


def test_devices():
    assert torch.sdaa.is_available() and torch.sdaa.device_count() == 4
    for name in (2, "sdaa:2", torch.device("sdaa:2")):
        torch.sdaa.set_device(0)
        torch.sdaa.set_device(name)
        assert torch.sdaa.current_device() == torch.zeros(1, device="sdaa").get_device() == 2
    with torch.sdaa.device(3):
        assert torch.zeros(1, device="sdaa").device == torch.device("sdaa:3")
    assert torch.sdaa.current_device() == 2
    moved = torch.arange(3, device="sdaa:3").to("sdaa:1")
    assert moved.device.index == 1 and moved.tolist() == [0, 1, 2]
    assert torch.zeros(1).sdaa().is_sdaa and nn.Linear(2, 2).sdaa().weight.device.index == 2
    assert torch.sdaa.get_device_name(1) == torch.sdaa.get_device_properties(1).name
    with pytest.raises(RuntimeError, match="invalid device ordinal"):
        torch.zeros(1, device="sdaa:4")


def test_memory():
    torch.sdaa.reset_peak_memory_stats()
    before = torch.sdaa.memory_allocated()
    free, total = torch.sdaa.mem_get_info()
    big = torch.zeros(1_000_000, device="sdaa")
    assert torch.sdaa.memory_allocated() == before + 4_000_000
    assert torch.sdaa.mem_get_info() == (free - 4_000_000, total)
    view = big[4:].view(3, -1)
    del big
    assert torch.sdaa.memory_allocated() == before + 4_000_000
    del view
    assert torch.sdaa.memory_allocated() == before
    assert torch.sdaa.max_memory_allocated() == before + 4_000_000
    assert torch.sdaa.memory_stats()["allocated_bytes.all.peak"] == before + 4_000_000
    torch.sdaa.reset_peak_memory_stats()
    assert torch.sdaa.max_memory_allocated() == before
    with pytest.raises(RuntimeError, match=r"^sdaa out of memory. Tried to allocate "):
        torch.empty(16 * 1024**3, dtype=torch.uint8, device="sdaa")


def test_out_of_memory_at_chosen_allocations():
    x = torch.zeros(1000, device="sdaa")
    torch.sdaa._fail_next(4000, count=2, skip=1)
    x + 1
    for _ in range(2):
        torch.zeros(10, device="sdaa")  # too small to count
        with pytest.raises(RuntimeError, match=r"^sdaa out of memory. Tried to allocate "):
            x + 1
    assert (x + 1).sum() == 1000


def test_random_numbers():
    generator = torch.Generator("sdaa").manual_seed(3)
    state = generator.get_state()
    drawn = torch.rand(5, device="sdaa", generator=generator)
    assert torch.equal(drawn, torch.rand(5, device="sdaa", generator=generator.set_state(state)))
    assert generator.device == torch.device("sdaa:0") and generator.initial_seed() == 3
    same_seed = torch.rand(5, generator=torch.Generator().manual_seed(3))
    assert not torch.equal(drawn.cpu(), same_seed)
    with pytest.raises(RuntimeError, match="'sdaa' device type for generator"):
        torch.rand(5, device="sdaa", generator=torch.Generator())

    torch.manual_seed(5)
    mine = torch.randn(5, device="sdaa"), torch.randperm(9, device="sdaa"), torch.rand(5)
    torch.manual_seed(5)
    others = torch.randn(5, device="sdaa"), torch.randperm(9, device="sdaa"), torch.rand(5)
    assert all(torch.equal(a, b) for a, b in zip(mine, others))
    torch.sdaa.manual_seed(5)
    assert torch.equal(mine[0], torch.randn(5, device="sdaa"))
    before = torch.sdaa.get_rng_state(), torch.get_rng_state()
    dropped = nn.functional.dropout(mine[0])
    torch.randint(0, 5, (3,), device="sdaa")
    torch.multinomial(torch.ones(4, device="sdaa"), 2)
    assert torch.equal(before[1], torch.get_rng_state())  # the CPU's is another
    torch.sdaa.set_rng_state(before[0])
    assert torch.equal(dropped, nn.functional.dropout(mine[0]))
    assert torch.sdaa.default_generators[0].get_state().equal(torch.sdaa.get_rng_state(0))


def test_streams():
    stream, event, later = torch.sdaa.Stream(), *(torch.sdaa.Event(True) for _ in range(2))
    with torch.sdaa.stream(stream):
        assert torch.sdaa.current_stream() == stream
        event.record()
    assert torch.sdaa.current_stream() == torch.sdaa.default_stream()
    later.record()
    later.synchronize()
    assert event.query() and event.elapsed_time(later) >= 0
    torch.sdaa.current_stream().wait_stream(stream)
    torch.sdaa.current_stream().wait_event(event)
    torch.zeros(1, device="sdaa").record_stream(stream)
    torch.sdaa.synchronize()


def test_copies_and_files(tmp_path):
    x = torch.arange(4.0, device="sdaa:1")
    assert torch.equal(copy.deepcopy(x), x) and torch.equal(pickle.loads(pickle.dumps(x)), x)
    model = nn.Linear(2, 2).to("sdaa")
    torch.save({"x": x, "part": x[1:3], "model": model.state_dict()}, tmp_path / "x.pth")
    there = torch.load(tmp_path / "x.pth", weights_only=True)
    assert there["x"].device == x.device and there["part"].tolist() == [1, 2]
    there["x"][1] = 7
    assert there["part"][0] == 7  # still a view
    here = torch.load(tmp_path / "x.pth", map_location="cpu", weights_only=True)
    assert here["x"].tolist() == [0, 1, 2, 3] and here["x"].device.type == "cpu"
    assert repr(x) == "tensor([0., 1., 2., 3.], device='sdaa:1')"


def test_pinned_memory():
    # torch 2.4 pins for CUDA unless told otherwise; later versions warn of being told.
    is_old = torch.__version__.startswith("2.4.")
    device = ("sdaa",) if is_old else ()
    told = {"pin_memory_device": "sdaa"} if is_old else {}
    loader = DataLoader(TensorDataset(torch.arange(8.0)), 4, num_workers=1, pin_memory=True, **told)
    batches = [batch for (batch,) in loader]
    assert all(batch.is_pinned(*device) and batch[1:].is_pinned(*device) for batch in batches)
    assert not torch.zeros(4).is_pinned(*device)
    moved = torch.cat([batch.to("sdaa", non_blocking=True) for batch in batches])
    assert moved.tolist() == list(range(8))


def test_a_forked_process_cannot_use_it():
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        seeded = torch.sdaa._is_in_bad_fork() and torch.manual_seed(0) is not None
        try:
            torch.zeros(1, device="sdaa")
        except RuntimeError as error:
            os._exit(0 if seeded and "forked subprocess" in str(error) else 2)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
