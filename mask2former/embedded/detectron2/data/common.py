"""Datasets made of datasets: mapped, from a list, iterated in a sampler's order, grouped."""

import copy
import itertools
import logging
import pickle
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info
from torch.utils.data.sampler import Sampler

__all__ = ["AspectRatioGroupedDataset", "DatasetFromList", "MapDataset", "ToIterableDataset"]

logger = logging.getLogger(__name__)


class _MapIterableDataset(IterableDataset):
    """MapDataset over an iterable dataset: items whose map is None are left out."""

    def __init__(self, dataset: IterableDataset, map_func: Callable[[Any], Any]) -> None:
        self._dataset = dataset
        self._map_func = map_func

    def __len__(self) -> int:
        return len(self._dataset)

    def __iter__(self) -> Iterator:
        return (item for item in map(self._map_func, self._dataset) if item is not None)


class MapDataset(Dataset):
    """Apply a function to the items of a dataset.

    Where the function returns None, another random index that is not known to fail is taken
    instead. Over an iterable dataset such items are left out.

    Args:
        dataset: a map-style or an iterable dataset.
        map_func: receives an item; None means that this item cannot be used.
    """

    def __new__(cls, dataset: Dataset | Sequence, map_func: Callable[[Any], Any]) -> Dataset:
        if isinstance(dataset, IterableDataset):
            return _MapIterableDataset(dataset, map_func)
        return super().__new__(cls)

    def __getnewargs__(self) -> tuple[Dataset | Sequence, Callable[[Any], Any]]:
        return self._dataset, self._map_func

    def __init__(self, dataset: Dataset | Sequence, map_func: Callable[[Any], Any]) -> None:
        self._dataset = dataset
        self._map_func = map_func
        self._rng = random.Random(42)
        self._usable = set(range(len(dataset)))

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, idx: int) -> Any:
        current = int(idx)
        for num_failures in itertools.count(1):
            item = self._map_func(self._dataset[current])
            if item is not None:
                self._usable.add(current)
                return item
            self._usable.discard(current)
            if not self._usable:
                raise ValueError(
                    f"no sample is usable: the mapper returned None for all {len(self)} "
                    f"that were tried, last for index {current}; check the annotations"
                )
            if num_failures >= 3:
                logger.warning(
                    "the mapper returned None %d times in a row for index %s", num_failures, idx
                )
            current = self._rng.choice(list(self._usable))


class _SerializedList:
    """A list pickled into one tensor.

    Forked workers that touch a Python object write its reference count, and so end up copying
    the whole list; the tensor stays shared by all of them.
    """

    def __init__(self, items: Sequence) -> None:
        pickled = [np.frombuffer(pickle.dumps(item, protocol=-1), np.uint8) for item in items]
        sizes = [len(item) for item in pickled]
        self._ends = torch.from_numpy(np.cumsum([0, *sizes], dtype=np.int64))
        self._bytes = torch.from_numpy(np.concatenate([np.empty(0, np.uint8), *pickled]))
        logger.info("serialized %d samples into %.2f MiB", len(self), sum(sizes) / 2**20)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, idx: int) -> Any:
        if not -len(self) <= idx < len(self):
            raise IndexError(f"index {idx} in a dataset of {len(self)} samples")
        idx = idx % len(self)
        start, end = self._ends[idx].item(), self._ends[idx + 1].item()
        return pickle.loads(memoryview(self._bytes[start:end].numpy()))


class DatasetFromList(Dataset):
    """A list as a dataset.

    Args:
        lst: the samples.
        copy: give out deep copies, so that a caller may change them. Serialized samples are
            always copies.
        serialize: keep the samples pickled in one buffer that workers share. A function
            makes another container of the list.
    """

    def __init__(
        self, lst: list, copy: bool = True, serialize: bool | Callable[[list], Sequence] = True
    ) -> None:
        self._copy = copy and not serialize
        make = serialize if callable(serialize) else _SerializedList
        self._lst = make(lst) if serialize else lst

    def __len__(self) -> int:
        return len(self._lst)

    def __getitem__(self, idx: int) -> Any:
        return copy.deepcopy(self._lst[idx]) if self._copy else self._lst[idx]


class ToIterableDataset(IterableDataset):
    """Iterate over a dataset in the order of a sampler, shared out between a loader's workers.

    Every worker runs through the sampler by itself, so the sampler has to give the same indices
    in each of them; one with an explicit seed does.

    Args:
        dataset: a map-style dataset.
        sampler: gives indices of it.
        shard_sampler: share the indices out between workers. False if the sampler does so.
        shard_chunk_size: number of consecutive indices that go to one worker. With the
            loader's batch size, batches do not depend on the number of workers.
    """

    def __init__(
        self,
        dataset: Dataset,
        sampler: Sampler,
        shard_sampler: bool = True,
        shard_chunk_size: int = 1,
    ) -> None:
        if isinstance(dataset, IterableDataset):
            raise TypeError("the dataset is iterable already; it cannot follow a sampler")
        if not isinstance(sampler, Sampler):
            raise TypeError(f"the sampler is a {type(sampler).__name__}; give a torch Sampler")
        self.dataset = dataset
        self.sampler = sampler
        self.shard_sampler = shard_sampler
        self.shard_chunk_size = shard_chunk_size

    def __iter__(self) -> Iterator:
        indices = _worker_share(self.sampler, self.shard_chunk_size)
        for idx in indices if self.shard_sampler else self.sampler:
            yield self.dataset[idx]

    def __len__(self) -> int:
        return len(self.sampler)


def _worker_share(indices: Iterable[int], chunk_size: int) -> Iterator[int]:
    """The chunks that are this worker's turn; everything in the main process."""
    worker = get_worker_info()
    num_workers, mine = (worker.num_workers, worker.id) if worker else (1, 0)
    for position, idx in enumerate(indices):
        if position // chunk_size % num_workers == mine:
            yield idx


class AspectRatioGroupedDataset(IterableDataset):
    """Batch landscape images with landscape ones and others with others: less padding.

    Args:
        dataset: yields dicts with "width" and "height".
        batch_size: number of dicts in each list that is yielded. A rest is dropped.
    """

    def __init__(self, dataset: Iterable[dict], batch_size: int) -> None:
        self.dataset = dataset
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[list[dict]]:
        waiting = {True: [], False: []}
        for sample in self.dataset:
            is_landscape = sample["width"] > sample["height"]
            waiting[is_landscape].append(sample)
            if len(waiting[is_landscape]) == self.batch_size:
                yield waiting[is_landscape]
                waiting[is_landscape] = []
