"""Which sample comes when, and with what random numbers: a pure function of seed and position.

The training set is one infinite stream of positions 0, 1, 2, ...; each names an image, and with
SEED gives the seed of its augmentation. Worker count, process count, gradient accumulation and the
moment of a resume do not change it. Seeds that follow from (SEED, rank, worker, epoch), as loaders
have them elsewhere, would: a resumed run would deal its images to other workers.
"""

import itertools
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

Position = tuple[int, int]  # (place in the global stream, index into the dataset)


def shuffled_indices(size: int, seed: int) -> Iterator[int]:
    """Epoch after epoch of 0..size-1, each in a new order: detectron2's TrainingSampler."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.randperm(size, generator=generator).tolist()


def repeated_indices(repeat_factors: torch.Tensor, seed: int) -> Iterator[int]:
    """The same, index i about repeat_factors[i] times an epoch: RepeatFactorTrainingSampler.

    Args:
        repeat_factors: (size,) float; a fraction is rounded up with that probability.
    """
    generator = torch.Generator().manual_seed(seed)
    whole = repeat_factors.floor()
    fraction = repeat_factors - whole
    while True:
        extra = torch.rand(len(fraction), generator=generator) < fraction
        indices = torch.arange(len(whole)).repeat_interleave((whole + extra).long())
        yield from indices[torch.randperm(len(indices), generator=generator)].tolist()


def group_into_batches(
    indices: Iterator[int], batch_size: int, group_of: Callable[[int], int]
) -> Iterator[list[Position]]:
    """Batches of `batch_size` positions whose images are all of one group, e.g. all upright."""
    waiting: dict[int, list[Position]] = {}
    for position, index in enumerate(indices):
        batch = waiting.setdefault(group_of(index), [])
        batch.append((position, index))
        if len(batch) == batch_size:
            yield waiting.pop(group_of(index))


class RankBatches:
    """The batches of one process: an iterable of lists of positions, for torch's DataLoader.

    An iteration takes one global batch off the stream. It is cut into `accumulate` micro-batches,
    and each of these is dealt out to the processes like cards.
    """

    def __init__(
        self,
        batches: Callable[[], Iterator[list[Position]]],
        start_iter: int,
        accumulate: int,
        rank: int,
        world_size: int,
    ):
        self.batches = batches
        self.start_iter = start_iter
        self.accumulate = accumulate
        self.rank = rank
        self.world_size = world_size

    def __iter__(self) -> Iterator[list[Position]]:
        for batch in itertools.islice(self.batches(), self.start_iter, None):
            size = len(batch) // self.accumulate
            for start in range(0, len(batch), size):
                yield batch[start + self.rank : start + size : self.world_size]


def sample_seed(seed: int, position: int) -> int:
    """A sample's own seed, 63 bits; neighbouring positions and seeds give unrelated ones."""
    return int(np.random.SeedSequence([seed, position]).generate_state(1, np.uint64)[0] >> 1)


def stand_ins(own_seed: int, size: int) -> Iterator[int]:
    """0..size-1 in the order in which they are tried where a sample cannot be used."""
    generator = torch.Generator().manual_seed(own_seed)
    yield from torch.randperm(size, generator=generator).tolist()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Python's, NumPy's and torch's random numbers from `seed`; afterwards as they were before.

    Only torch's CPU generator: `torch.manual_seed` would also seed the accelerators', which a
    loader without workers shares with the model.
    """
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])
