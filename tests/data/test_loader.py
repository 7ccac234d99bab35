"""The stream of training samples is a function of seed and position, and of nothing else."""

import itertools
import random

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.samplers import RepeatFactorTrainingSampler, TrainingSampler
from detectron2.utils import comm
from PIL import Image

from mask2former import device as devices
from mask2former.data import build_test_loader, build_train_loader
from mask2former.data.errors import SampleError
from mask2former.data.sample_stream import (
    RankBatches,
    group_into_batches,
    repeated_indices,
    sample_seed,
    seeded,
    shuffled_indices,
)


@pytest.fixture
def augmented(cfg):
    cfg.INPUT.MIN_SIZE_TRAIN = (80, 96, 110)
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.TYPE = True, "absolute"
    cfg.INPUT.CROP.SIZE = (64, 64)
    cfg.INPUT.COLOR_AUG_SSD = True
    cfg.INPUT.RANDOM_FLIP = "horizontal"
    return cfg


def _take(cfg, count: int, **kwargs) -> list[list[dict]]:
    return list(itertools.islice(build_train_loader(cfg, seed=3, **kwargs), count))


def _same(a: list[dict], b: list[dict]) -> bool:
    return len(a) == len(b) and all(
        x["file_name"] == y["file_name"]
        and x["seed"] == y["seed"]
        and torch.equal(x["image"], y["image"])
        and torch.equal(x["sem_seg"], y["sem_seg"])
        for x, y in zip(a, b)
    )


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_a_resumed_stream_is_the_uninterrupted_one(augmented, num_workers):
    whole = _take(augmented, 8)
    augmented.DATALOADER.NUM_WORKERS = num_workers
    for start in (0, 1, 5):
        resumed = _take(augmented, 8 - start, start_iter=start)
        assert all(map(_same, resumed, whole[start:]))
    assert not any(_same(a, b) for a, b in itertools.combinations(whole, 2))


def test_another_seed_is_another_stream(augmented):
    a = next(iter(build_train_loader(augmented, seed=3)))
    b = next(iter(build_train_loader(augmented, seed=4)))
    assert not _same(a, b)
    assert {entry["seed"] for entry in a}.isdisjoint(entry["seed"] for entry in b)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("grouping", [False, True])
def test_processes_share_the_stream_of_one(augmented, monkeypatch, accumulate, grouping):
    augmented.SOLVER.IMS_PER_BATCH = 4
    augmented.DATALOADER.ASPECT_RATIO_GROUPING = grouping
    alone = [sample for batch in _take(augmented, 4) for sample in batch]
    augmented.SOLVER.ACCUMULATE_STEPS = accumulate
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    shares = []
    for rank in (0, 1):
        monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
        shares.append(_take(augmented, 4 * accumulate))
        assert [len(batch) for batch in shares[-1]] == [2 // accumulate] * (4 * accumulate)
    dealt = [
        sample for pair in zip(*shares) for samples in zip(*pair) for sample in samples
    ]  # rank 0, rank 1, rank 0, ...
    assert _same(dealt, alone)


def test_accumulation_cuts_the_same_batches_smaller(augmented):
    augmented.SOLVER.IMS_PER_BATCH = 4
    whole = _take(augmented, 2)
    augmented.SOLVER.ACCUMULATE_STEPS = 4
    parts = _take(augmented, 8)
    assert all(len(part) == 1 for part in parts)
    assert _same([part[0] for part in parts], whole[0] + whole[1])
    resumed = _take(augmented, 4, start_iter=1)
    assert _same([part[0] for part in resumed], whole[1])


@pytest.mark.parametrize(
    ("batch", "steps", "world", "multiple"), [(4, 3, 1, 3), (6, 2, 2, 4), (0, 1, 1, 1)]
)
def test_batches_that_do_not_divide(cfg, monkeypatch, batch, steps, world, multiple):
    cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.ACCUMULATE_STEPS = batch, steps
    monkeypatch.setattr(comm, "get_world_size", lambda: world)
    with pytest.raises(ValueError, match=rf"IMS_PER_BATCH={batch} .* multiple of {multiple}$"):
        build_train_loader(cfg, seed=0)


def test_loading_leaves_the_global_random_numbers_alone(augmented):
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    _take(augmented, 2)
    assert random.getstate() == before[0]
    assert (np.random.get_state()[1] == before[1]).all()
    assert torch.equal(torch.get_rng_state(), before[2])


def test_seeded_is_the_same_whatever_came_before():
    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item()

    with seeded(5):
        first = draw()
    draw()
    with seeded(5):
        assert draw() == first
    with seeded(6):
        assert all(a != b for a, b in zip(draw(), first))


def test_sample_seeds_differ_and_stay():
    seeds = [sample_seed(seed, position) for seed in range(30) for position in range(200)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert np.mean([seed > 2**62 for seed in seeds]) == pytest.approx(0.5, abs=0.05)
    assert sample_seed(2**31, 0) == sample_seed(2**31, 0) != sample_seed(0, 2**31)


def test_order_is_that_of_detectron2s_samplers():
    theirs = itertools.islice(TrainingSampler(7, seed=11), 30)
    assert list(itertools.islice(shuffled_indices(7, 11), 30)) == list(theirs)
    factors = torch.tensor([1.0, 2.5, 1.2, 3.0])
    theirs = itertools.islice(RepeatFactorTrainingSampler(factors, seed=11), 60)
    assert list(itertools.islice(repeated_indices(factors, 11), 60)) == list(theirs)


def test_every_epoch_shows_every_image_once():
    indices = list(itertools.islice(shuffled_indices(9, 0), 27))
    epochs = [indices[:9], indices[9:18], indices[18:]]
    assert all(sorted(epoch) == list(range(9)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_groups_do_not_mix_and_nothing_is_lost():
    batches = list(itertools.islice(group_into_batches(iter(range(40)), 4, lambda i: i % 3), 9))
    assert all(len({index % 3 for _, index in batch}) == 1 for batch in batches)
    assert all(position == index for batch in batches for position, index in batch)
    seen = [index for batch in batches for _, index in batch]
    assert len(seen) == len(set(seen)) == 36
    for group in range(3):
        assert [i for i in seen if i % 3 == group] == list(range(group, 36, 3))


def test_a_late_resume_is_wound_forward_quickly():
    def batches():
        return group_into_batches(shuffled_indices(3000, 0), 16, lambda index: 0)

    first = next(iter(RankBatches(batches, 20_000, accumulate=1, rank=1, world_size=4)))
    assert [position for position, _ in first] == [16 * 20_000 + 1 + 4 * i for i in range(4)]


def test_upright_and_wide_pictures_are_batched_apart(cfg, tmp_path):
    sizes = [(40, 60), (60, 40), (40, 60), (60, 40), (50, 50), (60, 40)]
    entries = []
    for number, (height, width) in enumerate(sizes):
        label = np.zeros((height, width), np.uint8)
        path = str(tmp_path / f"{number}.png")
        Image.fromarray(label).save(path)
        entries.append({"file_name": path, "sem_seg_file_name": path})  # sizes are read off
    DatasetCatalog.register("shapes", lambda: entries)
    MetadataCatalog.get("shapes").set(ignore_label=255)
    try:
        cfg.DATASETS.TRAIN = ("shapes",)
        cfg.INPUT.MIN_SIZE_TRAIN = (40,)
        for batch in _take(cfg, 12):
            wide = {entry["width"] > entry["height"] for entry in batch}
            assert len(batch) == 2 and len(wide) == 1
        cfg.DATALOADER.ASPECT_RATIO_GROUPING = False
        mixed = [{e["width"] > e["height"] for e in batch} for batch in _take(cfg, 12)]
        assert {True, False} in mixed
    finally:
        DatasetCatalog.remove("shapes")
        MetadataCatalog.remove("shapes")


def test_rare_classes_are_repeated(cfg):
    """One image of eight shows class 1, so it is worth 0.5 / (1/8) = 4 of the others."""
    entries = [
        {"file_name": str(number), "height": 1, "width": 2, "annotations": [{"category_id": 0}]}
        for number in range(8)
    ]
    entries[5]["annotations"].append({"category_id": 1})
    DatasetCatalog.register("rare", lambda: entries)
    try:
        cfg.DATASETS.TRAIN = ("rare",)
        cfg.DATALOADER.SAMPLER_TRAIN = "RepeatFactorTrainingSampler"
        cfg.DATALOADER.REPEAT_THRESHOLD, cfg.DATALOADER.REPEAT_SQRT = 0.5, False
        batches = _take(cfg, 11 * 5, mapper=dict)  # an epoch has 7 + 4 samples
    finally:
        DatasetCatalog.remove("rare")
    names = [entry["file_name"] for batch in batches for entry in batch]
    assert {name: names.count(name) for name in names} == {
        str(number): 40 if number == 5 else 10 for number in range(8)
    }


def test_samplers_that_cannot_be_used(cfg):
    cfg.DATALOADER.SAMPLER_TRAIN = "WeightedSampler"
    with pytest.raises(ValueError, match=r"'WeightedSampler' is not known; choose TrainingSampler"):
        build_train_loader(cfg, seed=0)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_broken_file_is_one_sentence_from_any_worker(cfg, own_datasets_root, num_workers):
    cfg.DATALOADER.NUM_WORKERS = num_workers
    root = own_datasets_root / "mini_cityscapes"
    label = sorted(root.glob("gtFine/train/*/*labelTrainIds.png"))[2]
    pixels = np.array(Image.open(label))
    pixels[0, 0] = 77
    Image.fromarray(pixels).save(label)
    with pytest.raises(SampleError) as error:
        _take(cfg, 3)
    assert str(error.value).startswith(f"{label}: label values [77]")
    assert "\n" not in str(error.value)

    image = sorted(root.glob("leftImg8bit/val/*/*.png"))[1]
    image.write_bytes(image.read_bytes()[:-500])
    with pytest.raises(SampleError) as error:
        list(build_test_loader(cfg, "mini_cityscapes_fine_sem_seg_val"))
    assert str(error.value).startswith(f"{image}: not a whole picture")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_test_loader_gives_every_picture_once_in_order(cfg, num_workers):
    cfg.DATALOADER.NUM_WORKERS = num_workers
    loader = build_test_loader(cfg, "mini_cityscapes_fine_sem_seg_val")
    batches = list(loader)
    names = [entry["file_name"] for entry in DatasetCatalog.get("mini_cityscapes_fine_sem_seg_val")]
    assert [[entry["file_name"] for entry in batch] for batch in batches] == [[n] for n in names]
    assert len(loader) == len(names) == 3


def test_batches_are_pinned_for_a_device_that_gains_by_it(cfg, monkeypatch):
    assert not build_train_loader(cfg).loader.pin_memory
    entry = devices.Accelerator("cpu", pinned_memory=True)
    monkeypatch.setattr(devices, "ACCELERATORS", [entry])
    assert build_train_loader(cfg).loader.pin_memory
