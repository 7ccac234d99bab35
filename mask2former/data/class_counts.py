"""Which classes each picture of a dataset shows, of any kind of dataset."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from detectron2.utils import comm
from tqdm import tqdm

from mask2former.data.errors import SampleError
from mask2former.data.sample_files import check_label_map, count_values, read_image

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
    label = read_image(path, None)
    check_label_map(path, label)
    return frozenset(count_values(label)[0].tolist())
