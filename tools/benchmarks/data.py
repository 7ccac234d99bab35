"""Loading for training: our mapper beside a plain one, samples a second and bytes a sample.

Both make the same samples of the same random numbers, in one process and one thread, in turns; then
through the loader that trains, with its workers. Pictures are the project's drawn ones in the sizes
of the real ones. With --config-file it is the data of that config that are loaded.
"""

import argparse
import io
import math
import pickle
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import torch
from torch import Tensor
from tqdm import trange

from benchmarks.measuring import alone, interleaved, times_as_fast
from benchmarks.plain_mapper import build_plain_mapper
from benchmarks.tables import Cell, Table
from mask2former.config import load_config

# isort: split
from detectron2.data import get_detection_dataset_dicts

from mask2former.data import build_mapper, build_train_loader
from mask2former.data.datasets import register_all
from mask2former.data.files import datasets_root
from mask2former.data.mini.ade20k import make_mini_ade20k
from mask2former.data.mini.cityscapes import ensure_mini_cityscapes
from mask2former.data.mini.coco import make_mini_coco
from mask2former.data.mini.maker import MiniSpec
from mask2former.data.own import register_from_config
from mask2former.data.sample_stream import sample_seed, seeded

NUM_PICTURES = 4
NUM_SAMPLES = 16  # of a round
PLAIN, OURS = "plain", "ours"

Mapper = Callable[[dict], dict]


class Case(NamedTuple):
    """A training, and the size of its pictures."""

    title: str
    config_file: str
    size: tuple[int, int] | None = None


CASES = [
    Case(
        "Cityscapes, crops",
        "cityscapes/semantic-segmentation/maskformer2_R50_bs16_90k.yaml",
        (1024, 2048),
    ),
    Case(
        "ADE20K, crops",
        "ade20k/semantic-segmentation/maskformer2_R50_bs16_160k.yaml",
        (512, 683),
    ),
    Case(
        "COCO instances, jitter",
        "coco/instance-segmentation/maskformer2_R50_bs16_50ep.yaml",
        (480, 640),
    ),
    Case(
        "COCO panoptic, jitter",
        "coco/panoptic-segmentation/maskformer2_R50_bs16_50ep.yaml",
        (480, 640),
    ),
]

# The first word of a title -> what draws such pictures into a folder of datasets.
DRAW = {
    "Cityscapes": lambda root, spec: ensure_mini_cityscapes(root / "cityscapes", spec, num_test=0),
    "ADE20K": make_mini_ade20k,
    "COCO": lambda root, spec: make_mini_coco(root, spec, num_test=0),
}


class Found(NamedTuple):
    """What was measured of one case, by mapper."""

    seconds: dict[str, list[float]]  # of NUM_SAMPLES samples, one after the other, in each round
    num_bytes: dict[str, float]  # of a sample
    delivered: dict[str, list[float]]  # seconds of NUM_SAMPLES from the workers, in each round
    num_workers: int


def draw(root: Path, size: tuple[int, int] | None) -> None:
    """Draw the pictures of all cases, of one size if there is one."""
    sizes = {case.title.split()[0].rstrip(","): case.size for case in CASES}
    for name, own_size in sizes.items():
        DRAW[name](root, MiniSpec(*(size or own_size), num_train=NUM_PICTURES, num_val=1))


def measure_case(case: Case, root: str, opts: list[str], repeat: int) -> Found:
    """In this process, of which nothing else is asked afterwards: it has one thread from then on.

    Raises:
        FileNotFoundError, ValueError: there is no such config, or no such data.
    """
    register_all(root)
    cfg = load_config(case.config_file, opts)
    register_from_config(cfg)
    cfg.SOLVER.IMS_PER_BATCH = cfg.SOLVER.ACCUMULATE_STEPS = 1
    mappers = {PLAIN: build_plain_mapper(cfg), OURS: build_mapper(cfg, is_train=True)}
    mappers = {name: mapper for name, mapper in mappers.items() if mapper}
    dicts = get_detection_dataset_dicts(
        list(cfg.DATASETS.TRAIN), filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
    )
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    runs = {name: partial(map_some, mapper, dicts) for name, mapper in mappers.items()}
    seconds = interleaved(runs, repeat, torch.device("cpu"), case.title)
    num_bytes = {
        name: statistics.fmean(sent_bytes(sample) for sample in run()) for name, run in runs.items()
    }
    delivered: dict[str, list[float]] = {name: [] for name in mappers}
    loaders = {
        name: iter(build_train_loader(cfg, seed=0, mapper=mapper))
        for name, mapper in mappers.items()
    }
    for _ in trange(repeat, desc=f"{case.title}, by workers", leave=False):
        for name, batches in loaders.items():
            delivered[name].append(deliver(batches, cfg.DATALOADER.NUM_WORKERS))
    return Found(seconds, num_bytes, delivered, cfg.DATALOADER.NUM_WORKERS)


def map_some(mapper: Mapper, dicts: list[dict]) -> list[dict]:
    """NUM_SAMPLES samples with the random numbers that a training draws for them."""
    samples = []
    for position in range(NUM_SAMPLES):
        with seeded(sample_seed(0, position)):
            samples.append(mapper(dicts[position % len(dicts)]))
    return samples


def deliver(batches: Iterator[list[dict]], num_workers: int) -> float:
    """Seconds in which a training's loader gives NUM_SAMPLES samples, once its workers run.

    Afterwards these load ahead and then stand still, so that another loader can have its turn.
    """
    num_ahead = 2 * num_workers
    for _ in range(num_ahead + 1):
        next(batches)
    start = time.perf_counter()
    for _ in range(NUM_SAMPLES):
        next(batches)
    seconds = time.perf_counter() - start
    time.sleep(2 * seconds * num_ahead / NUM_SAMPLES)  # twice what that should take
    return seconds


class _Weighing(pickle.Pickler):
    """Pickles all but tensors, of which a worker sends the memory that they stand in."""

    def __init__(self, file: io.BytesIO):
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self.storages: dict[int, int] = {}

    def persistent_id(self, obj: object) -> int | None:
        if not isinstance(obj, Tensor):
            return None
        storage = obj.untyped_storage()
        self.storages[storage.data_ptr()] = storage.nbytes()
        return len(self.storages)


def sent_bytes(sample: dict) -> int:
    """What a worker sends of a sample: its tensors' memory, and all else pickled."""
    buffer = io.BytesIO()
    pickler = _Weighing(buffer)
    pickler.dump(sample)
    return len(buffer.getvalue()) + sum(pickler.storages.values())


def row(case: Case, name: str, found: Found) -> dict[str, Cell]:
    seconds, delivered = found.seconds[name], found.delivered[name]
    plain_bytes = found.num_bytes.get(PLAIN)
    return {
        "pictures": case.title,
        "mapper": name,
        "samples/s": NUM_SAMPLES / statistics.median(seconds),
        "times as fast as plain": times_as_fast(seconds, found.seconds.get(PLAIN)),
        "kB a sample": found.num_bytes[name] / 1024,
        "times plain's bytes": plain_bytes and found.num_bytes[name] / plain_bytes,
        f"samples/s of {found.num_workers} workers": NUM_SAMPLES / statistics.median(delivered),
        "with workers, times as fast": times_as_fast(delivered, found.delivered.get(PLAIN)),
    }


def needed(rows: list[dict[str, Cell]], rates: list[float]) -> list[dict[str, Cell]]:
    """How many workers a training of so many images a second needs, if each has a core."""
    return [
        {key: row[key] for key in ("pictures", "mapper")}
        | {f"workers for {rate:g} img/s": math.ceil(rate / row["samples/s"]) for rate in rates}
        for row in rows
    ]


def measure(args: argparse.Namespace) -> list[Table]:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        cases, root = CASES, folder
        if args.config_file:
            cases, root = [Case(args.config_file, args.config_file)], datasets_root()
        else:
            draw(Path(folder), args.size or None)
        for case in cases:
            found = alone(measure_case, case, root, args.opts, args.repeat)
            rows += [row(case, name, found) for name in found.seconds]
    title = f"Loading, {NUM_SAMPLES} samples in each of {args.repeat} round(s), one thread"
    return [
        Table(title, rows),
        Table("Workers that feed a training", needed(rows, args.images_per_second)),
    ]
