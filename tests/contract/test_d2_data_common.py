"""The datasets that detectron2 makes of datasets, on either provider."""

import pickle

import numpy as np
import pytest
import torch
from d2_inputs import REFUSED
from detectron2.data import DatasetFromList, MapDataset, ToIterableDataset
from detectron2.data.common import AspectRatioGroupedDataset
from detectron2.data.samplers import InferenceSampler, TrainingSampler
from torch.utils.data import DataLoader, IterableDataset


class Numbers(IterableDataset):
    def __init__(self, num):
        self.num = num

    def __iter__(self):
        return iter(range(self.num))


def double(x):
    return 2 * x


def none_if_odd(x):
    return None if x % 2 else x


# -------------------------------------------------------------------------------- DatasetFromList
SAMPLES = [{"image_id": 1}, {"mask": np.arange(3)}, ["any", ("thing", None)]]


def test_serialized_list_gives_equal_copies():
    dataset = DatasetFromList(SAMPLES)
    assert len(dataset) == 3
    assert dataset[0] == {"image_id": 1} and dataset[2] == SAMPLES[2]
    assert dataset[1]["mask"].tolist() == [0, 1, 2]
    dataset[0]["image_id"] = 5
    assert dataset[0] == {"image_id": 1} and SAMPLES[0] == {"image_id": 1}
    assert dataset[-1] == SAMPLES[2]
    with pytest.raises(IndexError):
        dataset[3]


def test_serialized_list_does_not_keep_the_objects():
    samples = [{"image_id": 1}]
    dataset = DatasetFromList(samples, copy=False)
    samples[0]["image_id"] = 2
    assert dataset[0] == {"image_id": 1}


def test_plain_list_is_copied_only_if_asked_for():
    samples = [[1], [2]]
    assert DatasetFromList(samples, copy=False, serialize=False)[0] is samples[0]
    copied = DatasetFromList(samples, serialize=False)[0]
    assert copied == samples[0] and copied is not samples[0]


def test_another_container_can_be_given():
    class Negated(list):
        def __getitem__(self, index):
            return -super().__getitem__(index)

    assert DatasetFromList([1, 2], serialize=Negated)[1] == -2


def test_serialized_list_travels_to_workers():
    dataset = pickle.loads(pickle.dumps(DatasetFromList(SAMPLES)))
    assert len(dataset) == 3 and dataset[0] == SAMPLES[0]


# ------------------------------------------------------------------------------------- MapDataset
def test_map_is_applied_on_demand():
    calls = []

    def spy(x):
        calls.append(x)
        return 2 * x

    dataset = MapDataset([1, 2, 3], spy)
    assert len(dataset) == 3 and not calls
    assert dataset[2] == 6 and calls == [3]


def test_unusable_samples_are_replaced_as_in_detectron2():
    calls = []

    def spy(x):
        calls.append(x)
        return none_if_odd(x)

    dataset = MapDataset(list(range(8)), spy)
    assert [dataset[i] for i in range(8)] == [0, 6, 2, 0, 4, 0, 6, 4]
    assert calls == [0, 1, 6, 2, 3, 0, 4, 5, 0, 6, 7, 4]


def test_replacements_avoid_what_is_known_to_fail():
    failed = []

    def spy(x):
        if x % 10:
            failed.append(x)
        return None if x % 10 else x

    dataset = MapDataset(list(range(50)), spy)
    assert {dataset[7] for _ in range(60)} <= {0, 10, 20, 30, 40}
    others = [x for x in failed if x != 7]
    assert len(others) == len(set(others))


def test_no_usable_sample_is_an_error():
    with pytest.raises(ValueError):
        MapDataset([1, 3, 5], none_if_odd)[0]


def test_map_over_an_iterable_leaves_none_out():
    dataset = MapDataset(Numbers(6), none_if_odd)
    assert isinstance(dataset, IterableDataset)
    assert list(dataset) == [0, 2, 4]
    assert list(pickle.loads(pickle.dumps(dataset))) == [0, 2, 4]


def test_map_dataset_travels_to_workers():
    dataset = pickle.loads(pickle.dumps(MapDataset(DatasetFromList([1, 2, 3]), double)))
    assert [dataset[i] for i in range(3)] == [2, 4, 6]


# ------------------------------------------------------------------------------- ToIterableDataset
@pytest.mark.parametrize(
    ("chunk", "num_workers", "expected"),
    [
        (1, 0, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (1, 2, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        # one worker has 0 1, 4 5, 8 9, the other 2 3, 6 7; they are asked in turn
        (2, 2, [0, 2, 1, 3, 4, 6, 5, 7, 8, 9]),
    ],
)
def test_workers_share_the_samplers_indices(chunk, num_workers, expected):
    dataset = ToIterableDataset(
        DatasetFromList(list(range(10))), InferenceSampler(10), shard_chunk_size=chunk
    )
    assert len(dataset) == 10
    assert list(DataLoader(dataset, batch_size=None, num_workers=num_workers)) == expected


def test_a_sampler_that_shards_itself_is_not_sharded_again():
    dataset = ToIterableDataset(
        DatasetFromList([0, 1, 2]), InferenceSampler(3), shard_sampler=False
    )
    loader = DataLoader(dataset, batch_size=None, num_workers=2)
    assert sorted(loader) == [0, 0, 1, 1, 2, 2]


def test_to_iterable_needs_a_map_style_dataset_and_a_sampler():
    with pytest.raises(REFUSED):
        ToIterableDataset(Numbers(3), InferenceSampler(3))
    with pytest.raises(REFUSED):
        ToIterableDataset(DatasetFromList([1]), [0])


def test_endless_sampler_is_read_lazily():
    dataset = iter(ToIterableDataset(DatasetFromList([5, 6, 7]), TrainingSampler(3, seed=0)))
    order = torch.randperm(3, generator=torch.Generator().manual_seed(0))
    assert [next(dataset) for _ in range(3)] == [5 + i for i in order.tolist()]


# ----------------------------------------------------------------------- AspectRatioGroupedDataset
def test_grouping_keeps_landscape_images_together():
    sizes = [(2, 1), (1, 2), (1, 1), (3, 1), (4, 1), (1, 3)]  # width, height
    samples = [{"width": w, "height": h, "id": i} for i, (w, h) in enumerate(sizes)]
    batches = AspectRatioGroupedDataset(samples, 2)
    assert [[sample["id"] for sample in batch] for batch in batches] == [[1, 2], [0, 3]]


def test_batches_are_not_changed_later():
    samples = [{"width": 2, "height": 1, "id": i} for i in range(6)]
    batches = list(AspectRatioGroupedDataset(samples, 2))
    assert [[sample["id"] for sample in batch] for batch in batches] == [[0, 1], [2, 3], [4, 5]]
