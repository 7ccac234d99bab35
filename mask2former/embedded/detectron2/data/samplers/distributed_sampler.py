"""Samplers: which index comes next, for every process of a job.

Every process runs through the same stream of indices and keeps each `world_size`-th of it, so the
seed has to be the same in all of them. Training streams never end.
"""

import itertools
import logging
import math
from collections import Counter
from collections.abc import Iterator

import torch
from torch.utils.data.sampler import Sampler

from detectron2.utils import comm

__all__ = [
    "InferenceSampler",
    "RandomSubsetTrainingSampler",
    "RepeatFactorTrainingSampler",
    "TrainingSampler",
]

logger = logging.getLogger(__name__)


class _InfiniteSampler(Sampler):
    """The share of one process in an endless stream that a subclass makes."""

    def __init__(self, seed: int | None) -> None:
        self._seed = comm.shared_random_seed() if seed is None else int(seed)
        self._rank = comm.get_rank()
        self._world_size = comm.get_world_size()

    def __iter__(self) -> Iterator[int]:
        yield from itertools.islice(self._infinite_indices(), self._rank, None, self._world_size)

    def _infinite_indices(self) -> Iterator[int]:
        """The stream of all processes together."""
        raise NotImplementedError


class TrainingSampler(_InfiniteSampler):
    """0..size-1 in a new random order each epoch, without end.

    Args:
        size: number of samples.
        shuffle: False keeps the order 0..size-1.
        seed: the same in all processes; None lets them agree on a random one.
    """

    def __init__(self, size: int, shuffle: bool = True, seed: int | None = None) -> None:
        if not isinstance(size, int):
            raise TypeError(f"TrainingSampler got size={size!r}; give the number of samples")
        if size <= 0:
            raise ValueError(f"TrainingSampler got size={size}; the dataset has no samples")
        super().__init__(seed)
        self._size = size
        self._shuffle = shuffle
        logger.info("TrainingSampler: %d samples, shuffle=%s", size, shuffle)

    def _infinite_indices(self) -> Iterator[int]:
        generator = torch.Generator()
        generator.manual_seed(self._seed)
        while True:
            if self._shuffle:
                yield from torch.randperm(self._size, generator=generator).tolist()
            else:
                yield from range(self._size)


class RandomSubsetTrainingSampler(TrainingSampler):
    """TrainingSampler over a random part of the dataset, chosen once.

    Args:
        size: number of samples.
        subset_ratio: fraction of them to use, in (0, 1].
        shuffle: reorder the subset each epoch.
        seed_shuffle, seed_subset: the same in all processes; None lets them agree.
    """

    def __init__(
        self,
        size: int,
        subset_ratio: float,
        shuffle: bool = True,
        seed_shuffle: int | None = None,
        seed_subset: int | None = None,
    ) -> None:
        super().__init__(size, shuffle, seed_shuffle)
        if not 0.0 < subset_ratio <= 1.0:
            raise ValueError(f"subset_ratio={subset_ratio}; set it to a fraction in (0, 1]")
        num_chosen = int(size * subset_ratio)
        generator = torch.Generator()
        generator.manual_seed(comm.shared_random_seed() if seed_subset is None else seed_subset)
        self._chosen = torch.randperm(size, generator=generator)[:num_chosen]
        logger.info("RandomSubsetTrainingSampler: %d of %d samples", num_chosen, size)

    def _infinite_indices(self) -> Iterator[int]:
        generator = torch.Generator()
        generator.manual_seed(self._seed)
        while True:
            if self._shuffle:
                order = torch.randperm(len(self._chosen), generator=generator)
                yield from self._chosen[order].tolist()
            else:
                yield from self._chosen.tolist()


class RepeatFactorTrainingSampler(_InfiniteSampler):
    """Samples with rare categories appear several times an epoch (LVIS, Gupta et al. 2019).

    Args:
        repeat_factors: (N,) float tensor; the fraction is rounded anew, at random, each epoch.
        shuffle: False keeps the order of the dataset.
        seed: the same in all processes; None lets them agree on a random one.
    """

    def __init__(
        self, repeat_factors: torch.Tensor, *, shuffle: bool = True, seed: int | None = None
    ) -> None:
        super().__init__(seed)
        self._shuffle = shuffle
        self._whole = torch.trunc(repeat_factors)
        self._fraction = repeat_factors - self._whole

    @staticmethod
    def repeat_factors_from_category_frequency(
        dataset_dicts: list[dict], repeat_thresh: float, sqrt: bool = True
    ) -> torch.Tensor:
        """(N,) factors: that of an image is the largest of its categories', at least 1.

        Args:
            dataset_dicts: samples with "annotations", each with a "category_id".
            repeat_thresh: categories in a smaller fraction of the images are repeated.
            sqrt: factor sqrt(threshold / frequency) of the paper, or without the root.
        """
        categories = [{a["category_id"] for a in d["annotations"]} for d in dataset_dicts]
        num_images = Counter(itertools.chain.from_iterable(categories))
        factor = {}
        for category, count in num_images.items():
            ratio = repeat_thresh / (count / len(dataset_dicts))
            factor[category] = max(1.0, math.sqrt(ratio) if sqrt else ratio)
        factors = [max((factor[c] for c in present), default=1.0) for present in categories]
        return torch.tensor(factors, dtype=torch.float32)

    def _infinite_indices(self) -> Iterator[int]:
        generator = torch.Generator()
        generator.manual_seed(self._seed)
        while True:
            rounded_up = torch.rand(len(self._fraction), generator=generator) < self._fraction
            repeats = (self._whole + rounded_up).long().tolist()
            indices = [index for index, times in enumerate(repeats) for _ in range(times)]
            order = range(len(indices))
            if self._shuffle:
                order = torch.randperm(len(indices), generator=generator).tolist()
            yield from (indices[position] for position in order)


class InferenceSampler(Sampler):
    """Each index exactly once over all processes: contiguous blocks, as equal as possible."""

    def __init__(self, size: int) -> None:
        if size <= 0:
            raise ValueError(f"InferenceSampler got size={size}; the dataset has no samples")
        self._size = size
        rank, world_size = comm.get_rank(), comm.get_world_size()
        smallest, num_larger = divmod(size, world_size)
        begin = rank * smallest + min(rank, num_larger)
        self._local_indices = range(begin, begin + smallest + (rank < num_larger))

    def __iter__(self) -> Iterator[int]:
        yield from self._local_indices

    def __len__(self) -> int:
        return len(self._local_indices)
