"""Loaders for training and testing, as `cfg` asks for them."""

import itertools
import logging
from collections.abc import Callable, Iterator
from functools import partial

import cv2
import torch
from detectron2.config import CfgNode
from detectron2.data import (
    DatasetFromList,
    build_detection_test_loader,
    get_detection_dataset_dicts,
)
from detectron2.data.samplers import RepeatFactorTrainingSampler
from detectron2.utils import comm
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from mask2former.data.class_counts import classes_of_samples
from mask2former.data.dataset_mapper import build_mapper
from mask2former.data.errors import ErrorAsValue, PlainErrors, Replaced, SampleError
from mask2former.data.sample_stream import (
    Position,
    RankBatches,
    group_into_batches,
    repeated_indices,
    sample_seed,
    seeded,
    shuffled_indices,
    stand_ins,
)
from mask2former.data.sharing import shared
from mask2former.device import copies_from_pinned_memory, resolve_device

logger = logging.getLogger(__name__)


def build_train_loader(
    cfg: CfgNode,
    start_iter: int = 0,
    seed: int = 0,
    mapper: Callable[[dict], dict] | None = None,
) -> PlainErrors:
    """An infinite loader of lists of samples: SOLVER.ACCUMULATE_STEPS lists an iteration.

    A sample that cannot be used is named in the log and another, drawn by its position alone, takes
    its place, for as many of them as DATALOADER.MAX_BAD_SAMPLES allows in this process.

    Args:
        start_iter: the first iteration that is loaded; the stream is wound forward to it without
            loading anything.
        seed: not negative. Samples, their order and their random numbers follow from it alone.
        mapper: instead of the one that `cfg` names.

    Raises:
        ValueError: SOLVER.IMS_PER_BATCH does not divide, or DATALOADER.SAMPLER_TRAIN is unknown.
        SampleError: while iterating, a file of the dataset cannot be used, or too many cannot.
        NoSharedMemory: while iterating, what workers load cannot be sent.
    """
    batch_size, accumulate = cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.ACCUMULATE_STEPS
    world_size = comm.get_world_size()
    if batch_size <= 0 or batch_size % (accumulate * world_size):
        raise ValueError(
            f"SOLVER.IMS_PER_BATCH={batch_size} cannot be shared out equally between {world_size} "
            f"processes in SOLVER.ACCUMULATE_STEPS={accumulate} parts; make it a multiple of "
            f"{accumulate * world_size}"
        )
    dicts = get_detection_dataset_dicts(
        list(cfg.DATASETS.TRAIN), filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
    )
    order = _index_stream(cfg, dicts, seed)
    max_bad = cfg.DATALOADER.MAX_BAD_SAMPLES
    if cfg.DATALOADER.ASPECT_RATIO_GROUPING:
        groups = [_is_wide(entry, max_bad > 0) for entry in dicts]
    else:
        groups = [True] * len(dicts)
    batches = RankBatches(
        partial(_global_batches, order, batch_size, groups),
        start_iter,
        accumulate,
        comm.get_rank(),
        world_size,
    )
    num_workers = cfg.DATALOADER.NUM_WORKERS
    loader = DataLoader(
        _SeededSamples(dicts, mapper or build_mapper(cfg, is_train=True), seed, groups, max_bad),
        batch_sampler=batches,
        num_workers=num_workers,
        collate_fn=shared,
        worker_init_fn=_start_worker,
        pin_memory=copies_from_pinned_memory(resolve_device(cfg.MODEL.DEVICE).type),
        # Its own generator: the default would draw from the one that the training uses.
        generator=torch.Generator().manual_seed(seed),
    )
    logger.info(f"{len(dicts)} training images, {batch_size} an iteration, {num_workers} workers")
    return PlainErrors(loader, max_bad)


def build_test_loader(cfg: CfgNode, dataset_name: str) -> PlainErrors:
    """A loader of one-sample lists over this process's share of the dataset, in its order.

    Raises:
        SampleError: while iterating, a file of the dataset cannot be used; whatever
            DATALOADER.MAX_BAD_SAMPLES is, because scores over fewer pictures are other scores.
        NoSharedMemory: while iterating, what workers load cannot be sent.
    """
    mapper = ErrorAsValue(build_mapper(cfg, is_train=False))
    return PlainErrors(
        build_detection_test_loader(cfg, dataset_name, mapper=mapper, collate_fn=shared)
    )


class _SeededSamples(Dataset):
    """(position, index) -> the mapped sample, its augmentation drawn from its own seed.

    A sample that cannot be used is replaced by another of its group, if `max_bad` is above 0.
    """

    def __init__(
        self,
        dicts: list[dict],
        mapper: Callable[[dict], dict],
        seed: int,
        groups: list[bool],
        max_bad: int,
    ):
        self.dicts = DatasetFromList(dicts, copy=True)
        self.mapper = ErrorAsValue(mapper)
        self.seed = seed
        self.groups = groups
        self.max_bad = max_bad

    def __len__(self) -> int:
        return len(self.dicts)

    def __getitem__(self, item: Position) -> dict | Replaced:
        position, index = item
        own_seed = sample_seed(self.seed, position)
        faults: list[SampleError] = []
        for candidate in itertools.chain([index], self._others(own_seed, index)):
            with seeded(own_seed):
                sample = self.mapper(self.dicts[candidate])
            if isinstance(sample, SampleError):
                faults.append(sample)
                if len(faults) > self.max_bad:
                    break
                continue
            if isinstance(sample, dict):
                sample["seed"] = own_seed
            return Replaced(sample, faults) if faults else sample
        return Replaced(None, faults)

    def _others(self, own_seed: int, index: int) -> Iterator[int]:
        for other in stand_ins(own_seed, len(self)):
            if other != index and self.groups[other] == self.groups[index]:
                yield other


def _index_stream(cfg: CfgNode, dicts: list[dict], seed: int) -> Callable[[], Iterator[int]]:
    name = cfg.DATALOADER.SAMPLER_TRAIN
    if name == "TrainingSampler":
        return partial(shuffled_indices, len(dicts), seed)
    if name == "RepeatFactorTrainingSampler":
        return partial(repeated_indices, _repeat_factors(cfg, dicts), seed)
    raise ValueError(
        f"DATALOADER.SAMPLER_TRAIN={name!r} is not known; choose TrainingSampler or "
        "RepeatFactorTrainingSampler"
    )


def _repeat_factors(cfg: CfgNode, dicts: list[dict]) -> torch.Tensor:
    """How often an epoch has each image, by its rarest class (LVIS, Gupta et al. 2019)."""
    head, options = cfg.MODEL.SEM_SEG_HEAD, cfg.DATALOADER
    shown = classes_of_samples(dicts, head.NUM_CLASSES, head.IGNORE_VALUE)
    # detectron2 counts annotations; segments and labels are shown to it as such.
    annotated = [{"annotations": [{"category_id": i} for i in sorted(c)]} for c in shown]
    return RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
        annotated, options.REPEAT_THRESHOLD, sqrt=options.REPEAT_SQRT
    )


def _global_batches(
    order: Callable[[], Iterator[int]], batch_size: int, groups: list[bool]
) -> Iterator[list[Position]]:
    return group_into_batches(order(), batch_size, groups.__getitem__)


def _is_wide(entry: dict, may_be_broken: bool) -> bool:
    if "width" in entry and "height" in entry:
        return entry["width"] > entry["height"]
    try:
        with Image.open(entry["file_name"]) as image:  # reads the header only
            return image.width > image.height
    except OSError as error:
        if may_be_broken:
            return True  # of no account: the mapper will find it broken, too
        raise SampleError(
            f"{entry['file_name']}: not a picture ({error}); copy or download this file again"
        ) from error


def _start_worker(worker_id: int) -> None:
    # Workers are the parallelism; OpenCV's own threads would oversubscribe the machine and do
    # not survive a fork.
    cv2.setNumThreads(0)
