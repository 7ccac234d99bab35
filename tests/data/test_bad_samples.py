"""Broken pictures and labels in training: named, counted, replaced, up to a limit."""

import itertools
import logging
import threading
import time

import pytest
import torch
from detectron2.data import DatasetCatalog
from PIL import Image

from mask2former.data import build_test_loader, build_train_loader
from mask2former.data.dataset_mapper import build_mapper
from mask2former.data.errors import PlainErrors, Replaced, SampleError
from mask2former.data.waiting import patiently

TRAIN = "mini_cityscapes_fine_sem_seg_train"


@pytest.fixture
def spoil(own_datasets_root):
    """Break the picture, or the label, of the sample of an index; its path."""

    def break_file(index, key="file_name"):
        path = DatasetCatalog.get(TRAIN)[index][key]
        with open(path, "r+b") as file:
            file.truncate(1000 if key == "file_name" else 60)
        return path

    return break_file


@pytest.fixture
def told(caplog, monkeypatch):
    """The warnings of the loader that there were until now."""
    monkeypatch.setattr(logging.getLogger("mask2former"), "propagate", True)
    names = "mask2former.data.errors", "mask2former.data.waiting"
    return lambda: [r.getMessage() for r in caplog.records if r.name in names]


def take(cfg, count, **kwargs):
    return list(itertools.islice(build_train_loader(cfg, seed=3, **kwargs), count))


def key_of(sample):
    return sample["file_name"], sample["seed"], sample["image"].sum().item()


def keys_of(batches):
    return [[key_of(sample) for sample in batch] for batch in batches]


@pytest.fixture
def augmented(cfg):
    cfg.INPUT.MIN_SIZE_TRAIN = (80, 96, 110)
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE = True, "absolute", (64, 64)
    return cfg


def test_none_is_allowed_by_default(cfg, spoil, told):
    path = spoil(4)
    assert cfg.DATALOADER.MAX_BAD_SAMPLES == 0
    with pytest.raises(SampleError, match="not a whole picture") as error:
        take(cfg, 3)
    assert str(error.value).startswith(path) and not told()


def test_others_take_their_place_and_nothing_else_changes(augmented, spoil, told):
    """Whatever the number of workers, and wherever the run was interrupted."""
    before = keys_of(take(augmented, 12))
    bad = {spoil(1), spoil(4)}
    augmented.DATALOADER.MAX_BAD_SAMPLES = 2
    batches = keys_of(take(augmented, 12))
    assert [len(batch) for batch in batches] == [2] * 12
    replaced = 0
    for old, new in zip(itertools.chain(*before), itertools.chain(*batches)):
        if old[0] in bad:
            assert new[0] not in bad and new[1] == old[1]  # the seed is that of the position
            replaced += 1
        else:
            assert new == old
    assert replaced == 8  # 24 samples are 4 epochs of 6 pictures
    warnings = told()
    assert len(warnings) == 2 and {text.split(": ")[0] for text in warnings} == bad
    for number, text in enumerate(warnings, 1):
        assert "\n" not in text
        assert "another sample takes its place" in text
        assert f"broken sample {number} of at most 2: DATALOADER.MAX_BAD_SAMPLES" in text
    for num_workers, start in ((1, 5), (3, 0)):
        augmented.DATALOADER.NUM_WORKERS = num_workers
        assert keys_of(take(augmented, 12 - start, start_iter=start)) == batches[start:]


def test_the_replacement_is_augmented_as_if_nothing_had_been_tried(augmented, spoil):
    """What reading the broken one drew must not matter: another version may draw more."""
    spoil(2, "sem_seg_file_name")
    augmented.DATALOADER.MAX_BAD_SAMPLES = 1
    plain = keys_of(take(augmented, 6))

    class Drawing:
        def __init__(self, mapper):
            self.mapper = mapper

        def __call__(self, entry):
            try:
                return self.mapper(entry)
            except SampleError:
                torch.rand(3)
                raise

    assert keys_of(take(augmented, 6, mapper=Drawing(build_mapper(augmented, True)))) == plain


@pytest.mark.parametrize("num_workers", [0, 2])
def test_one_too_many_ends_the_run(cfg, spoil, num_workers):
    bad = [spoil(0), spoil(3, "sem_seg_file_name"), spoil(5)]
    cfg.DATALOADER.NUM_WORKERS = num_workers
    cfg.DATALOADER.MAX_BAD_SAMPLES = 2
    with pytest.raises(SampleError) as error:
        take(cfg, 6)
    sentence = str(error.value)
    assert any(sentence.startswith(path) for path in bad) and "\n" not in sentence
    assert "this is broken sample 3, and DATALOADER.MAX_BAD_SAMPLES=2 allows no more" in sentence


def test_nothing_is_left(cfg, spoil):
    for index in range(6):
        spoil(index)
    cfg.DATALOADER.MAX_BAD_SAMPLES = 10
    with pytest.raises(SampleError, match="there is no sample to take its place"):
        take(cfg, 1)


def test_an_evaluation_leaves_nothing_out(cfg, own_datasets_root):
    cfg.DATALOADER.MAX_BAD_SAMPLES = 10
    image = sorted(own_datasets_root.glob("mini_cityscapes/leftImg8bit/val/*/*.png"))[1]
    image.write_bytes(image.read_bytes()[:-500])
    with pytest.raises(SampleError, match="not a whole picture"):
        list(build_test_loader(cfg, "mini_cityscapes_fine_sem_seg_val"))


def test_groups_stay_apart(cfg, tmp_path):
    """Wide and upright pictures in one batch would be padded to a large square."""
    entries = []
    for number, size in enumerate([(60, 40), (40, 60)] * 3):
        path = str(tmp_path / f"{number}.png")
        Image.new("L", size).save(path)
        entries.append({"file_name": path, "sem_seg_file_name": path})
    (tmp_path / "2.png").write_bytes(b"")  # not even a size
    with open(tmp_path / "5.png", "r+b") as file:
        file.truncate(60)
    DatasetCatalog.register("two_shapes", lambda: entries)
    cfg.DATASETS.TRAIN = ("two_shapes",)
    cfg.INPUT.MIN_SIZE_TRAIN = (40,)
    cfg.DATALOADER.MAX_BAD_SAMPLES = 2
    batches = take(cfg, 12)
    assert all(len({s["width"] > s["height"] for s in batch}) == 1 for batch in batches)
    shown = {sample["file_name"] for batch in batches for sample in batch}
    assert shown == {entry["file_name"] for entry in entries} - {
        str(tmp_path / "2.png"),
        str(tmp_path / "5.png"),
    }


def test_the_first_batch_is_told_of_with_the_second(told):
    """When a training reads the first, there is no log.txt yet."""
    batches = [[Replaced({"number": 0}, [SampleError("x.png: gone")])], [{"number": 1}]]
    loader = PlainErrors(batches, max_bad=1)
    assert len(loader) == 2
    iterator = iter(loader)
    assert next(iterator) == [{"number": 0}] and not told()
    assert next(iterator) == [{"number": 1}] and len(told()) == 1
    assert list(loader) == [[{"number": 0}], [{"number": 1}]] and len(told()) == 1


def has_ended(thread):
    thread.join(10)
    return not thread.is_alive()


def test_a_wait_is_told_of_until_it_ends(told):
    def batches():
        yield 1
        time.sleep(0.7)
        yield 2

    before = set(threading.enumerate())
    found = []
    for batch in patiently(batches(), period=0.15):
        (watch,) = set(threading.enumerate()) - before
        found.append((batch, len(told())))
        time.sleep(0.5)  # the model's time is no wait
    assert [batch for batch, _ in found] == [1, 2]
    # A machine that is busy may make others wait as well, but hardly twice.
    assert found[1][1] - found[0][1] >= 2 > len(told()) - found[1][1] + found[0][1]
    assert told()[0].startswith("Waiting for data for 0 s; if this does not end")
    assert has_ended(watch)


def test_an_error_ends_the_watch():
    before = set(threading.enumerate())
    iterator = patiently(1 // n for n in (1, 0))
    next(iterator)
    (watch,) = set(threading.enumerate()) - before
    with pytest.raises(ZeroDivisionError):
        next(iterator)
    assert has_ended(watch)


def test_who_stops_asking_ends_the_watch():
    before = set(threading.enumerate())
    loader = PlainErrors([[{}], [{}]])
    iterator = iter(loader)
    next(iterator)
    (watch,) = set(threading.enumerate()) - before
    del iterator
    assert has_ended(watch)
