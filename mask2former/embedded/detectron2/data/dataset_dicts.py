"""The samples of registered datasets: joined, filtered, counted."""

import logging
from collections import Counter
from collections.abc import Sequence

from tabulate import tabulate
from torch.utils.data import ConcatDataset, Dataset

from detectron2.utils.logger import log_first_n

from .catalog import DatasetCatalog, MetadataCatalog
from .detection_utils import check_metadata_consistency

__all__ = [
    "filter_images_with_few_keypoints",
    "filter_images_with_only_crowd_annotations",
    "get_detection_dataset_dicts",
    "load_proposals_into_dataset",
    "print_instances_class_histogram",
]

logger = logging.getLogger(__name__)


def filter_images_with_only_crowd_annotations(dataset_dicts: list[dict]) -> list[dict]:
    """Drop images without any annotation that is not a crowd."""
    usable = [d for d in dataset_dicts if not all(a.get("iscrowd", 0) for a in d["annotations"])]
    logger.info(
        "Removed %d images with no usable annotations. %d images left.",
        len(dataset_dicts) - len(usable),
        len(usable),
    )
    return usable


def filter_images_with_few_keypoints(
    dataset_dicts: list[dict], min_keypoints_per_image: int
) -> list[dict]:
    """Drop images with fewer visible keypoints than that, over all their annotations."""

    def num_visible(sample: dict) -> int:
        return sum(v > 0 for a in sample["annotations"] for v in a.get("keypoints", ())[2::3])

    usable = [d for d in dataset_dicts if num_visible(d) >= min_keypoints_per_image]
    logger.info(
        "Removed %d images with fewer than %d keypoints.",
        len(dataset_dicts) - len(usable),
        min_keypoints_per_image,
    )
    return usable


def load_proposals_into_dataset(dataset_dicts: list[dict], proposal_file: str) -> list[dict]:
    """Always an ImportError: precomputed proposals belong to detectors that are not here."""
    raise ImportError(
        f"{proposal_file}: precomputed proposals are not in the embedded subset; "
        "pip install 'git+https://github.com/facebookresearch/detectron2'"
    )


def print_instances_class_histogram(dataset_dicts: list[dict], class_names: Sequence[str]) -> None:
    """Log how many instances, crowds aside, each class has.

    Raises:
        ValueError: a category_id is outside the classes.
    """
    counts = Counter(
        a["category_id"] for d in dataset_dicts for a in d["annotations"] if not a.get("iscrowd", 0)
    )
    unknown = sorted(set(counts) - set(range(len(class_names))))
    if unknown:
        raise ValueError(
            f"an annotation has category_id={unknown[0]}, but the dataset has {len(class_names)} "
            "classes; correct the annotations or thing_classes"
        )
    rows = [(name, counts[i]) for i, name in enumerate(class_names)]
    rows.append(("total", sum(counts.values())))
    table = tabulate(rows, headers=["category", "#instances"], tablefmt="pipe")
    # once for each dataset: it is loaded anew for every evaluation
    log_first_n(
        logging.INFO, f"Instances of the {len(class_names)} categories:\n{table}", key="message"
    )


def get_detection_dataset_dicts(
    names: str | list[str],
    filter_empty: bool = True,
    min_keypoints: int = 0,
    proposal_files: list[str] | None = None,
    check_consistency: bool = True,
) -> list[dict] | Dataset:
    """The samples of one or several datasets, one after the other.

    Args:
        names: names in DatasetCatalog.
        filter_empty: drop images that have no annotation but crowds.
        min_keypoints: drop images with fewer visible keypoints.
        proposal_files: not in the embedded subset.
        check_consistency: require the same thing_classes of all.

    Returns:
        dicts; or a torch Dataset if that is what was registered, unfiltered.

    Raises:
        ValueError: a dataset is empty, nothing is left of it, or the classes differ.
    """
    names = [names] if isinstance(names, str) else list(names)
    if not names:
        raise ValueError("no dataset was named; set DATASETS.TRAIN or DATASETS.TEST")
    datasets = [DatasetCatalog.get(name) for name in names]
    if isinstance(datasets[0], Dataset):
        return ConcatDataset(datasets) if len(datasets) > 1 else datasets[0]
    for name, dataset in zip(names, datasets):
        if not dataset:
            raise ValueError(f"dataset {name!r} has no samples; check the files it is read from")
    if proposal_files:
        load_proposals_into_dataset(datasets[0], proposal_files[0])

    dataset_dicts = [sample for dataset in datasets for sample in dataset]
    has_instances = all("annotations" in sample for sample in dataset_dicts)
    if has_instances and filter_empty:
        dataset_dicts = filter_images_with_only_crowd_annotations(dataset_dicts)
    if has_instances and min_keypoints > 0:
        dataset_dicts = filter_images_with_few_keypoints(dataset_dicts, min_keypoints)
    if has_instances and check_consistency:
        class_names = MetadataCatalog.get(names[0]).get("thing_classes")
        if class_names is not None:
            check_metadata_consistency("thing_classes", names)
            print_instances_class_histogram(dataset_dicts, class_names)
    if not dataset_dicts:
        raise ValueError(
            f"no sample of {', '.join(names)} has a usable annotation; check the annotations or "
            "set DATALOADER.FILTER_EMPTY_ANNOTATIONS False"
        )
    return dataset_dicts
