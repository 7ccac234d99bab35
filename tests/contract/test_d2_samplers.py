"""Samplers of detectron2, on either provider: seeded, shared out between processes, endless."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from d2_inputs import REFUSED
from detectron2.data.samplers import (
    InferenceSampler,
    RandomSubsetTrainingSampler,
    RepeatFactorTrainingSampler,
    TrainingSampler,
)
from detectron2.utils import comm

FACTORS = torch.tensor([1.0, 1.5, 2.2])

MAKE = {
    "training": lambda: TrainingSampler(5, seed=1),
    "training in order": lambda: TrainingSampler(5, shuffle=False, seed=1),
    "subset": lambda: RandomSubsetTrainingSampler(10, 0.5, True, 1, 2),
    "subset in order": lambda: RandomSubsetTrainingSampler(10, 0.55, False, 1, 2),
    "repeat factor": lambda: RepeatFactorTrainingSampler(FACTORS, seed=3),
    "repeat factor in order": lambda: RepeatFactorTrainingSampler(FACTORS, shuffle=False, seed=3),
}
# what detectron2's samplers give
STREAMS = {
    "training": [0, 4, 2, 3, 1, 3, 2, 4, 1, 0, 4, 1],
    "training in order": [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1],
    "subset": [8, 6, 1, 5, 7, 5, 1, 6, 7, 8, 6, 7],
    "subset in order": [8, 7, 1, 5, 6, 8, 7, 1, 5, 6, 8, 7],
    "repeat factor": [1, 1, 0, 2, 2, 2, 1, 2, 0, 0, 2, 2],
    "repeat factor in order": [0, 1, 1, 2, 2, 0, 1, 1, 2, 2, 2, 0],
}


def take(sampler, num):
    return list(itertools.islice(iter(sampler), num))


@pytest.fixture
def as_rank(monkeypatch):
    def pretend(rank, world_size):
        monkeypatch.setattr(comm, "get_rank", lambda: rank)
        monkeypatch.setattr(comm, "get_world_size", lambda: world_size)

    return pretend


@pytest.mark.parametrize("name", MAKE)
def test_streams_are_detectron2s(name):
    sampler = MAKE[name]()
    found = take(sampler, 12)
    assert found == STREAMS[name]
    assert all(type(index) is int for index in found)
    assert take(sampler, 12) == found  # every iteration begins anew


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("name", MAKE)
def test_processes_take_turns(name, world_size, as_rank):
    shares = []
    for rank in range(world_size):
        as_rank(rank, world_size)
        shares.append(take(MAKE[name](), 12 // world_size))
    together = [index for turn in zip(*shares) for index in turn]
    assert together == STREAMS[name]


def test_each_epoch_is_a_new_permutation():
    stream = take(TrainingSampler(20, seed=0), 60)
    epochs = [stream[i : i + 20] for i in (0, 20, 40)]
    assert all(sorted(epoch) == list(range(20)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_seeds_matter():
    assert take(TrainingSampler(20, seed=0), 20) != take(TrainingSampler(20, seed=1), 20)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: TrainingSampler(9), [3, 4, 7, 5, 0, 2, 1, 8]),
        (lambda: RandomSubsetTrainingSampler(9, 0.7), [4, 6, 5, 2, 0, 7, 5, 7]),
    ],
)
def test_without_a_seed_numpys_generator_decides(make, expected):
    np.random.seed(0)
    assert take(make(), 8) == expected


@pytest.mark.parametrize("size", [0, -1, 1.5])
def test_training_sampler_refuses_sizes_that_are_none(size):
    with pytest.raises(REFUSED):
        TrainingSampler(size)


def test_inference_sampler_refuses_an_empty_dataset():
    with pytest.raises(REFUSED):
        InferenceSampler(0)


@pytest.mark.parametrize("ratio", [0.0, -0.5, 1.5])
def test_subset_ratio_is_a_fraction(ratio):
    with pytest.raises(REFUSED):
        RandomSubsetTrainingSampler(10, ratio)


def test_subset_stays_the_same():
    stream = take(RandomSubsetTrainingSampler(100, 0.3, True, 5, 6), 90)
    epochs = [stream[i : i + 30] for i in (0, 30, 60)]
    assert len(set(epochs[0])) == 30
    assert set(epochs[0]) == set(epochs[1]) == set(epochs[2])
    assert epochs[0] != epochs[1]
    other = take(RandomSubsetTrainingSampler(100, 0.3, True, 5, 7), 30)
    assert set(other) != set(epochs[0])


def test_repeat_factors_follow_category_frequency():
    def sample(*categories):
        return {"annotations": [{"category_id": c} for c in categories]}

    dataset_dicts = [sample(0, 0), sample(1), sample(0, 2), sample(), sample(0)]
    make = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency
    # frequencies 3/5, 1/5, 1/5: only the last two are below 1/2
    root = (0.5 / 0.2) ** 0.5
    assert make(dataset_dicts, 0.5).tolist() == pytest.approx([1, root, root, 1, 1])
    assert make(dataset_dicts, 0.5, sqrt=False).tolist() == pytest.approx([1, 2.5, 2.5, 1, 1])
    assert make(dataset_dicts, 0.0).tolist() == [1] * 5


def test_repeat_factors_hold_on_average():
    stream = take(RepeatFactorTrainingSampler(FACTORS, seed=0), 47_000)
    counts = Counter(stream)
    per_epoch = len(stream) / FACTORS.sum().item()
    for index, factor in enumerate(FACTORS.tolist()):
        assert counts[index] / per_epoch == pytest.approx(factor, rel=0.01)


@pytest.mark.parametrize(
    ("size", "blocks"),
    [
        (1, [[0], [], []]),
        (2, [[0], [1], []]),
        (7, [[0, 1, 2], [3, 4], [5, 6]]),
        (9, [[0, 1, 2], [3, 4, 5], [6, 7, 8]]),
    ],
)
def test_inference_covers_everything_once_in_blocks(size, blocks, as_rank):
    for rank, block in enumerate(blocks):
        as_rank(rank, 3)
        sampler = InferenceSampler(size)
        assert list(sampler) == block and len(sampler) == len(block)
