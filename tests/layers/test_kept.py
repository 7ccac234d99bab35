"""What follows from sizes alone is made once, and whoever asked first does no harm to others."""

import copy

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from mask2former.layers.kept import NUM_KEPT, kept
from mask2former.layers.levels import Levels
from mask2former.layers.position_encoding import pixel_positions
from mask2former.modeling.pixel_decoder.msdeformattn import levels_and_centers

CPU = torch.device("cpu")


def counting_ones():
    calls = []

    @kept
    def ones(length, device):
        calls.append(length)
        return torch.ones(length, device=device)

    return ones, calls


def test_equal_arguments_share_one_result():
    ones, calls = counting_ones()
    assert ones(2, CPU) is ones(2, CPU) and ones(3, CPU) is not ones(2, CPU)
    assert calls == [2, 3]
    assert ones(2, torch.device("meta")).device.type == "meta" and ones(2, CPU).device == CPU


def test_the_last_few_are_kept():
    ones, calls = counting_ones()
    for length in range(NUM_KEPT + 1):
        ones(length, CPU)
    ones(1, CPU)
    assert len(calls) == NUM_KEPT + 1
    ones(0, CPU)
    assert len(calls) == NUM_KEPT + 2


def test_training_after_inference_mode():
    ones, _ = counting_ones()
    weight = nn.Parameter(torch.tensor(3.0))
    with torch.inference_mode():
        assert not ones(2, CPU).is_inference()
    (weight * ones(2, CPU)).sum().backward()  # which saves them
    assert weight.grad == 2 and not ones(2, CPU).requires_grad


def test_a_compiler_makes_its_own():
    ones, calls = counting_ones()

    def double(x):
        return ones(x.shape[0], x.device) * 2 + x

    compiled = torch.compile(double, backend="eager", fullgraph=True, dynamic=True)
    for length in (3, 5, 7):
        assert torch.equal(compiled(torch.ones(length)), torch.full((length,), 3.0))
    assert len(calls) <= 3


def test_fake_tensors_are_not_kept():
    ones, calls = counting_ones()
    for _ in range(2):
        with FakeTensorMode():
            assert isinstance(ones(2, CPU) * 2, FakeTensor)
        assert torch.equal(ones(2, CPU), torch.ones(2))
    assert calls == [2, 2, 2]


@pytest.mark.parametrize(
    "make",
    [
        lambda: pixel_positions(3, 5, 8, CPU),
        lambda: levels_and_centers(((2, 3), (4, 6)), CPU),
    ],
    ids=["positions", "levels"],
)
def test_what_decoders_share(make):
    assert make() is make()
    tensors = copy.deepcopy(make())
    if isinstance(tensors, tuple):
        levels, centers = tensors
        assert isinstance(levels, Levels) and levels.shapes == ((2, 3), (4, 6))
        assert levels.starts.tolist() == [0, 6] and centers.shape == (30, 2)
        assert centers[6].tolist() == pytest.approx([0.5 / 6, 0.5 / 4])
    else:
        assert tensors.shape == (15, 8) and tensors.is_contiguous()
