"""Loaders of batches, from datasets or from a config."""

import logging
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset
from torch.utils.data.sampler import Sampler

from detectron2 import _missing_attribute
from detectron2.config import CfgNode, configurable
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng

from .common import AspectRatioGroupedDataset, DatasetFromList, MapDataset, ToIterableDataset
from .dataset_dicts import (
    filter_images_with_few_keypoints,
    filter_images_with_only_crowd_annotations,
    get_detection_dataset_dicts,
    load_proposals_into_dataset,
    print_instances_class_histogram,
)
from .dataset_mapper import DatasetMapper
from .samplers import (
    InferenceSampler,
    RandomSubsetTrainingSampler,
    RepeatFactorTrainingSampler,
    TrainingSampler,
)

__all__ = [
    "build_batch_data_loader",
    "build_detection_test_loader",
    "build_detection_train_loader",
    "filter_images_with_few_keypoints",
    "filter_images_with_only_crowd_annotations",
    "get_detection_dataset_dicts",
    "load_proposals_into_dataset",
    "print_instances_class_histogram",
    "trivial_batch_collator",
    "worker_init_reset_seed",
]

logger = logging.getLogger(__name__)


def trivial_batch_collator(batch: list) -> list:
    """A batch is the list of its samples: images differ in size."""
    return batch


def _only_item(batch: list) -> Any:
    return batch[0]


def worker_init_reset_seed(worker_id: int) -> None:
    """Seed python, numpy and torch in a loader's worker, each worker differently."""
    seed_all_rng(torch.initial_seed() % 2**31 + worker_id)


def build_batch_data_loader(
    dataset: Dataset,
    sampler: Sampler | None,
    total_batch_size: int | None,
    *,
    aspect_ratio_grouping: bool = False,
    num_workers: int = 0,
    collate_fn: Callable[[list], Any] | None = None,
    drop_last: bool = True,
    single_gpu_batch_size: int | None = None,
    prefetch_factor: int = 2,
    persistent_workers: bool = False,
    pin_memory: bool = False,
    seed: int | None = None,
    **kwargs,
) -> Iterable[Any]:
    """An iterable of this process's batches.

    Args:
        dataset: map-style, or iterable with `sampler` None.
        sampler: gives indices to this process.
        total_batch_size: images in a batch over all processes.
        aspect_ratio_grouping: batch landscape images with landscape ones; needs dicts with
            "width" and "height".
        num_workers: of this process's loader.
        collate_fn: makes a batch of a list of samples; None gives the list.
        drop_last: drop an incomplete last batch.
        single_gpu_batch_size: images in a batch of this process, instead of total_batch_size.
        prefetch_factor, persistent_workers: used where there are workers.
        pin_memory: passed on to torch's DataLoader, as are `kwargs`.
        seed: of the loader's workers.
    """
    batch_size = _batch_size_per_process(total_batch_size, single_gpu_batch_size)
    if isinstance(dataset, IterableDataset):
        if sampler is not None:
            raise ValueError("an iterable dataset has its own order; pass sampler=None")
    else:
        dataset = ToIterableDataset(dataset, sampler, shard_chunk_size=batch_size)
    if seed is not None:
        kwargs["generator"] = torch.Generator().manual_seed(seed)
    if num_workers > 0:
        kwargs.update(prefetch_factor=prefetch_factor, persistent_workers=persistent_workers)
    kwargs.update(
        num_workers=num_workers, pin_memory=pin_memory, worker_init_fn=worker_init_reset_seed
    )
    logger.info("Batches of %d images in each process", batch_size)
    if not aspect_ratio_grouping:
        collate_fn = collate_fn or trivial_batch_collator
        return DataLoader(
            dataset, batch_size=batch_size, drop_last=drop_last, collate_fn=collate_fn, **kwargs
        )
    if not drop_last:
        raise ValueError("aspect_ratio_grouping drops incomplete batches; pass drop_last=True")
    samples = DataLoader(dataset, batch_size=1, collate_fn=_only_item, **kwargs)
    batches = AspectRatioGroupedDataset(samples, batch_size)
    return batches if collate_fn is None else MapDataset(batches, collate_fn)


def _batch_size_per_process(total: int | None, single: int | None) -> int:
    if single is not None:
        if total is not None:
            raise ValueError(
                f"total_batch_size={total} and single_gpu_batch_size={single}; pass one of them"
            )
        return single
    world_size = comm.get_world_size()
    if total is None or total <= 0 or total % world_size != 0:
        raise ValueError(
            f"a total batch size of {total} cannot be shared by {world_size} processes; "
            "set SOLVER.IMS_PER_BATCH to a multiple of their number"
        )
    return total // world_size


def _training_sampler(name: str, dataset: Dataset | list, options: CfgNode) -> Sampler:
    if name == "TrainingSampler":
        return TrainingSampler(len(dataset))
    if name == "RepeatFactorTrainingSampler":
        factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
            dataset, options.REPEAT_THRESHOLD, sqrt=options.REPEAT_SQRT
        )
        return RepeatFactorTrainingSampler(factors)
    if name == "RandomSubsetTrainingSampler":
        return RandomSubsetTrainingSampler(len(dataset), options.RANDOM_SUBSET_RATIO)
    raise ValueError(
        f"DATALOADER.SAMPLER_TRAIN={name!r}; set it to TrainingSampler, "
        "RepeatFactorTrainingSampler or RandomSubsetTrainingSampler"
    )


def _train_loader_from_config(
    cfg: CfgNode,
    mapper: Callable | None = None,
    *,
    dataset: list | Dataset | None = None,
    sampler: Sampler | None = None,
) -> dict[str, Any]:
    options = cfg.DATALOADER
    if dataset is None:
        dataset = get_detection_dataset_dicts(
            cfg.DATASETS.TRAIN,
            filter_empty=options.FILTER_EMPTY_ANNOTATIONS,
            min_keypoints=_min_keypoints(cfg),
            proposal_files=cfg.DATASETS.PROPOSAL_FILES_TRAIN if cfg.MODEL.LOAD_PROPOSALS else None,
        )
    if sampler is None and not isinstance(dataset, IterableDataset):
        sampler = _training_sampler(options.SAMPLER_TRAIN, dataset, options)
    return {
        "dataset": dataset,
        "sampler": sampler,
        "mapper": DatasetMapper(cfg, True) if mapper is None else mapper,
        "total_batch_size": cfg.SOLVER.IMS_PER_BATCH,
        "aspect_ratio_grouping": options.ASPECT_RATIO_GROUPING,
        "num_workers": options.NUM_WORKERS,
    }


def _min_keypoints(cfg: CfgNode) -> int:
    if not cfg.MODEL.KEYPOINT_ON:
        return 0
    return cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE


@configurable(from_config=_train_loader_from_config)
def build_detection_train_loader(
    dataset: list | Dataset,
    *,
    mapper: Callable[[dict], Any],
    sampler: Sampler | None = None,
    total_batch_size: int,
    aspect_ratio_grouping: bool = True,
    num_workers: int = 0,
    collate_fn: Callable[[list], Any] | None = None,
    **kwargs,
) -> Iterable[Any]:
    """An endless iterable of batches, or `build_detection_train_loader(cfg, mapper=None)`.

    Args:
        dataset: a list of dicts, or a torch Dataset.
        mapper: called on each sample when it is needed; None leaves them as they are.
        sampler: gives indices to this process; None is TrainingSampler.
        total_batch_size, aspect_ratio_grouping, num_workers, collate_fn, kwargs: see
            `build_batch_data_loader`.
    """
    dataset = _mapped(dataset, mapper)
    if sampler is None and not isinstance(dataset, IterableDataset):
        sampler = TrainingSampler(len(dataset))
    return build_batch_data_loader(
        dataset,
        sampler,
        total_batch_size,
        aspect_ratio_grouping=aspect_ratio_grouping,
        num_workers=num_workers,
        collate_fn=collate_fn,
        **kwargs,
    )


def _test_loader_from_config(
    cfg: CfgNode, dataset_name: str | list[str], mapper: Callable | None = None
) -> dict[str, Any]:
    dataset = get_detection_dataset_dicts(
        dataset_name,
        filter_empty=False,
        proposal_files=cfg.DATASETS.PROPOSAL_FILES_TEST if cfg.MODEL.LOAD_PROPOSALS else None,
    )
    is_iterable = isinstance(dataset, IterableDataset)
    return {
        "dataset": dataset,
        "mapper": DatasetMapper(cfg, False) if mapper is None else mapper,
        "num_workers": cfg.DATALOADER.NUM_WORKERS,
        "sampler": None if is_iterable else InferenceSampler(len(dataset)),
    }


@configurable(from_config=_test_loader_from_config)
def build_detection_test_loader(
    dataset: list | Dataset,
    *,
    mapper: Callable[[dict], Any],
    sampler: Sampler | None = None,
    batch_size: int = 1,
    num_workers: int = 0,
    collate_fn: Callable[[list], Any] | None = None,
) -> DataLoader:
    """A DataLoader that gives each sample once, shared out between the processes.

    Also `build_detection_test_loader(cfg, dataset_name, mapper=None)`.

    Args:
        dataset: a list of dicts, or a torch Dataset.
        mapper: called on each sample when it is needed; None leaves them as they are.
        sampler: gives indices to this process; None is InferenceSampler.
        batch_size: images in a batch of this process; the last may have fewer.
        num_workers, collate_fn: see `build_batch_data_loader`.
    """
    dataset = _mapped(dataset, mapper)
    if isinstance(dataset, IterableDataset):
        if sampler is not None:
            raise ValueError("an iterable dataset has its own order; pass sampler=None")
    elif sampler is None:
        sampler = InferenceSampler(len(dataset))
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        drop_last=False,
        num_workers=num_workers,
        collate_fn=collate_fn or trivial_batch_collator,
    )


def _mapped(dataset: list | Dataset, mapper: Callable[[dict], Any] | None) -> Dataset:
    if isinstance(dataset, list):
        dataset = DatasetFromList(dataset, copy=False)
    return dataset if mapper is None else MapDataset(dataset, mapper)


__getattr__ = _missing_attribute(__name__)
