"""detectron2's loaders of batches, on either provider."""

import itertools
import random

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from d2_inputs import REFUSED, make_samples
from detectron2.config import get_cfg
from detectron2.data import (
    DatasetCatalog,
    build_batch_data_loader,
    build_detection_test_loader,
    build_detection_train_loader,
)
from detectron2.data.common import DatasetFromList, MapDataset
from detectron2.data.samplers import (
    InferenceSampler,
    RandomSubsetTrainingSampler,
    RepeatFactorTrainingSampler,
    TrainingSampler,
)
from PIL import Image
from torch.utils.data import IterableDataset


def ids(batches, num=None):
    return [[sample["image_id"] for sample in batch] for batch in itertools.islice(batches, num)]


def identity(sample):
    return sample


# ------------------------------------------------------------------------------------ test loader
@pytest.mark.parametrize("num_workers", [0, 2])
def test_test_loader_gives_each_sample_once_in_order(num_workers):
    loader = build_detection_test_loader(
        make_samples(5), mapper=identity, batch_size=2, num_workers=num_workers
    )
    assert len(loader) == 3
    assert ids(loader) == [[0, 1], [2, 3], [4]]
    assert ids(loader) == [[0, 1], [2, 3], [4]]


def test_test_loader_defaults_to_one_image():
    assert ids(build_detection_test_loader(make_samples(2), mapper=identity)) == [[0], [1]]


def test_test_loader_with_its_own_sampler_and_collate_function():
    loader = build_detection_test_loader(
        make_samples(5),
        mapper=lambda sample: sample["image_id"],
        sampler=[3, 1, 4],
        batch_size=2,
        collate_fn=tuple,
    )
    assert list(loader) == [(3, 1), (4,)]


def test_test_loader_takes_any_dataset():
    assert ids(build_detection_test_loader(MapDataset(make_samples(2), identity), mapper=None)) == [
        [0],
        [1],
    ]


# ----------------------------------------------------------------------------------- train loader
@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_batches_do_not_depend_on_the_number_of_workers(num_workers):
    loader = build_detection_train_loader(
        make_samples(6),
        mapper=identity,
        sampler=TrainingSampler(6, seed=1),
        total_batch_size=2,
        aspect_ratio_grouping=False,
        num_workers=num_workers,
    )
    assert ids(loader, 5) == [[1, 5], [2, 0], [3, 4], [1, 2], [3, 5]]


def test_grouped_batches_hold_one_orientation():
    loader = build_detection_train_loader(
        make_samples(6), mapper=identity, sampler=TrainingSampler(6, seed=1), total_batch_size=2
    )
    # the stream begins 1 5 2 0 3 4 1 2 3 5; odd samples are landscape
    batches = ids(loader, 50)
    assert batches[:4] == [[1, 5], [2, 0], [3, 1], [4, 2]]
    assert all(len({i % 2 for i in batch}) == 1 for batch in batches)


def test_collate_function_sees_lists_of_samples():
    for grouping in (False, True):
        loader = build_detection_train_loader(
            make_samples(6),
            mapper=identity,
            sampler=TrainingSampler(6, seed=1),
            total_batch_size=2,
            aspect_ratio_grouping=grouping,
            collate_fn=lambda batch: {"ids": [sample["image_id"] for sample in batch]},
        )
        assert next(iter(loader)) == {"ids": [1, 5]}


def test_default_sampler_shuffles_without_end():
    np.random.seed(0)
    loader = build_detection_train_loader(
        make_samples(6), mapper=identity, total_batch_size=6, aspect_ratio_grouping=False
    )
    batches = ids(loader, 3)
    assert all(sorted(batch) == list(range(6)) for batch in batches)
    assert batches[0] != batches[1]


def test_iterable_dataset_brings_its_own_order():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(make_samples(5))

    loader = build_detection_train_loader(
        Stream(), mapper=identity, total_batch_size=2, aspect_ratio_grouping=False
    )
    assert ids(loader) == [[0, 1], [2, 3]]  # an incomplete batch is dropped
    with pytest.raises(REFUSED):
        build_detection_train_loader(
            Stream(), mapper=identity, sampler=TrainingSampler(5), total_batch_size=2
        )


def batches_of(num_samples, total_batch_size, **kwargs):
    dataset = DatasetFromList(make_samples(num_samples))
    return build_batch_data_loader(
        dataset, TrainingSampler(num_samples, seed=1), total_batch_size, **kwargs
    )


def test_batch_size_is_given_for_all_processes_or_for_one():
    assert len(next(iter(batches_of(6, 3)))) == 3
    assert len(next(iter(batches_of(6, None, single_gpu_batch_size=4)))) == 4
    for total, kwargs in ((0, {}), (4, {"single_gpu_batch_size": 4})):
        with pytest.raises(REFUSED):
            batches_of(6, total, **kwargs)


def draw_random_numbers(sample):
    return {
        "seed": torch.initial_seed(),
        "numpy": np.random.randint(2**31),
        "python": random.random(),
        "torch": torch.rand(()).item(),
    }


def drawn_in_workers(seed, num_workers=2, num_batches=4):
    loader = build_batch_data_loader(
        MapDataset(DatasetFromList(make_samples(6)), draw_random_numbers),
        TrainingSampler(6, seed=1),
        1,
        num_workers=num_workers,
        seed=seed,
    )
    return [batch[0] for batch in itertools.islice(loader, num_batches)]


def test_workers_are_seeded_each_differently_and_repeatably():
    draws = drawn_in_workers(seed=5)
    for first in draws[:2]:  # the first of each of the two workers
        assert first["numpy"] == np.random.RandomState(first["seed"]).randint(2**31)
        assert first["python"] == random.Random(first["seed"]).random()
    for kind in ("numpy", "python", "torch"):
        assert len({draw[kind] for draw in draws}) == len(draws)
    assert drawn_in_workers(seed=5) == draws
    assert drawn_in_workers(seed=6) != draws


# ----------------------------------------------------------------------------------- from a config
@pytest.fixture
def cfg(register):
    cfg = get_cfg()
    cfg.DATASETS.TRAIN = (register("train", make_samples(6), thing_classes=["a", "b"]),)
    cfg.DATASETS.TEST = (register("test", make_samples(3), thing_classes=["a", "b"]),)
    cfg.SOLVER.IMS_PER_BATCH = 2
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.DATALOADER.ASPECT_RATIO_GROUPING = False
    return cfg


def sampler_of(loader):
    return loader.dataset.sampler


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("TrainingSampler", TrainingSampler),
        ("RepeatFactorTrainingSampler", RepeatFactorTrainingSampler),
        ("RandomSubsetTrainingSampler", RandomSubsetTrainingSampler),
    ],
)
def test_config_chooses_the_sampler(cfg, name, expected):
    cfg.DATALOADER.SAMPLER_TRAIN = name
    cfg.DATALOADER.REPEAT_THRESHOLD = 0.5
    cfg.DATALOADER.RANDOM_SUBSET_RATIO = 0.5
    loader = build_detection_train_loader(cfg, mapper=identity)
    assert type(sampler_of(loader)) is expected
    assert len(next(iter(loader))) == 2


def test_config_with_an_unknown_sampler(cfg):
    cfg.DATALOADER.SAMPLER_TRAIN = "NoSuchSampler"
    with pytest.raises(ValueError, match="NoSuchSampler"):
        build_detection_train_loader(cfg, mapper=identity)


def test_arguments_override_the_config(cfg):
    loader = build_detection_train_loader(
        cfg,
        mapper=identity,
        dataset=make_samples(4),
        sampler=TrainingSampler(4, shuffle=False, seed=0),
        total_batch_size=3,
    )
    assert ids(loader, 3) == [[0, 1, 2], [3, 0, 1], [2, 3, 0]]


def test_config_filters_empty_images_in_training_only(cfg, register):
    samples = make_samples(4)
    samples[0]["annotations"] = []
    name = register("part_empty", samples, thing_classes=["a", "b"])
    cfg.DATASETS.TRAIN = (name,)
    loader = build_detection_train_loader(cfg, mapper=identity)
    assert {i for batch in ids(loader, 30) for i in batch} == {1, 2, 3}
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
    loader = build_detection_train_loader(cfg, mapper=identity)
    assert {i for batch in ids(loader, 30) for i in batch} == {0, 1, 2, 3}
    assert ids(build_detection_test_loader(cfg, name, mapper=identity)) == [[0], [1], [2], [3]]


def test_test_loader_from_config(cfg):
    loader = build_detection_test_loader(cfg, cfg.DATASETS.TEST[0], mapper=identity)
    assert isinstance(loader.sampler, InferenceSampler)
    assert ids(loader) == [[0], [1], [2]]


def test_default_mapper_reads_images(cfg, tmp_path):
    for sample in DatasetCatalog.get(cfg.DATASETS.TEST[0]):
        sample["file_name"] = str(tmp_path / sample["file_name"])
        Image.new("RGB", (sample["width"], sample["height"]), (10, 20, 30)).save(
            sample["file_name"]
        )
    cfg.INPUT.MIN_SIZE_TEST = 15
    cfg.INPUT.FORMAT = "RGB"
    ((first,), *_) = build_detection_test_loader(cfg, cfg.DATASETS.TEST[0])
    assert first["image"].shape == (3, 18, 15)
    assert first["image"][:, 4, 4].tolist() == [10, 20, 30]
    assert "annotations" not in first


def _run_in_process(rank, world_size, rendezvous, results):
    dist.init_process_group("gloo", f"file://{rendezvous}", rank=rank, world_size=world_size)
    np.random.seed(100 + rank)  # processes have their own random state
    train = build_detection_train_loader(
        make_samples(6),
        mapper=identity,
        sampler=TrainingSampler(6, seed=1),
        total_batch_size=4,
        aspect_ratio_grouping=False,
    )
    unseeded = {
        "training": TrainingSampler(10),
        "subset": RandomSubsetTrainingSampler(16, 0.625),
        "repeat factor": RepeatFactorTrainingSampler(torch.ones(10)),
    }
    found = {
        "train": ids(train, 3),
        "test": ids(build_detection_test_loader(make_samples(5), mapper=identity)),
        "unseeded": {n: list(itertools.islice(iter(s), 10)) for n, s in unseeded.items()},
    }
    try:
        batches_of(6, 3)
    except REFUSED as error:
        found["odd"] = str(error)
    torch.save(found, f"{results}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def of_two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    mp.spawn(_run_in_process, (2, folder / "rendezvous", folder), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def test_two_processes_share_the_batches(of_two_processes):
    first, second = of_two_processes
    # the stream of one process: 1 5 2 0 3 4 | 1 2 3 5 4 0
    assert first["train"] == [[1, 2], [3, 1], [3, 4]]
    assert second["train"] == [[5, 0], [4, 2], [5, 0]]
    assert first["test"] == [[0], [1], [2]] and second["test"] == [[3], [4]]


def test_a_batch_that_two_processes_cannot_share_is_refused(of_two_processes):
    for found in of_two_processes:
        assert "3" in found["odd"] and "2" in found["odd"]


@pytest.mark.parametrize("name", ["training", "subset", "repeat factor"])
def test_two_processes_agree_on_a_seed(name, of_two_processes):
    first, second = (found["unseeded"][name] for found in of_two_processes)
    together = [index for turn in zip(first, second) for index in turn]
    # only with one seed in both processes is each epoch of ten without repetition
    assert len(set(together[:10])) == 10
    assert set(together[:10]) == set(together[10:])
