"""Which classes each picture of a dataset shows, of any kind of dataset."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
from detectron2.data import detection_utils
from detectron2.utils import comm
from tqdm import tqdm

from mask2former.data.errors import SampleError

MANY = 500  # label files, from which on reading them shows a progress bar


def classes_of_samples(
    dicts: Sequence[dict], num_classes: int, ignore_value: int
) -> list[frozenset[int]]:
    """The classes that each sample shows: by its annotations, else its segments, else its labels.

    Of several processes the main one reads the label files, and each file once.

    Args:
        num_classes: values of label files from here on are no classes, nor is `ignore_value`.

    Raises:
        SampleError: a label file cannot be read.
        ValueError: the samples have nothing of the kind.
    """
    for key in ("annotations", "segments_info"):
        if key in dicts[0]:
            return [frozenset(entry["category_id"] for entry in d[key]) for d in dicts]
    if "sem_seg_file_name" not in dicts[0]:
        raise ValueError(
            f"{dicts[0]['file_name']}: its dataset gives neither annotations nor segments_info nor "
            "sem_seg_file_name, so that its classes cannot be counted"
        )
    found = None
    if comm.is_main_process():
        classes = frozenset(range(num_classes)) - {ignore_value}
        found = [v & classes for v in values_of_labels([d["sem_seg_file_name"] for d in dicts])]
    return comm.all_gather(found)[0]


def values_of_labels(files: Sequence[str]) -> list[frozenset[int]]:
    """The values that each label file has.

    Raises:
        SampleError: one is missing, no picture, or one of colours.
    """
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        values = threads.map(_values, files)
        is_short = len(files) < MANY
        return list(tqdm(values, "classes", len(files), unit="file", disable=is_short))


def _values(path: str) -> frozenset[int]:
    try:
        state = os.stat(path)
    except FileNotFoundError as error:
        raise SampleError(f"{path}: no such file; the dataset's list names it") from error
    return _values_of_version(path, state.st_mtime_ns, state.st_size)


@cache
def _values_of_version(path: str, mtime_ns: int, size: int) -> frozenset[int]:
    try:
        label = detection_utils.read_image(path)
    except (OSError, SyntaxError) as error:  # Pillow raises either on a broken file
        raise SampleError(
            f"{path}: not a whole picture ({error}); copy or download this file again"
        ) from error
    if label.ndim != 2 or label.dtype.kind not in "bui":
        raise SampleError(
            f"{path}: a label map has one channel of whole numbers, this one has the shape "
            f"{label.shape} and the type {label.dtype}; save class indices, not colours"
        )
    return frozenset(np.unique(label).tolist())
