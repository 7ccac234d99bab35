"""From the names of a user's own datasets to catalog entries, and to the config that fits them."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import ModuleType

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from mask2former.data.class_counts import values_of_labels
from mask2former.data.datasets.catalog import register
from mask2former.data.own import coco, panoptic, semantic
from mask2former.data.own.description import Description
from mask2former.data.own.spelling import Spelling, is_own, parse
from mask2former.data.problems import Problem, refuse_fatal

logger = logging.getLogger(__name__)

READERS: dict[str, ModuleType] = {"coco": coco, "semantic": semantic, "panoptic": panoptic}

# kind -> the switch of MODEL.MASK_FORMER.TEST that an evaluation needs, the mappers that a
# training can have, and a config that has them
TASKS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "coco": (
        "INSTANCE_ON",
        ("mask_former_instance", "coco_instance_lsj"),
        "coco/instance-segmentation/maskformer2_R50_bs16_50ep.yaml",
    ),
    "semantic": (
        "SEMANTIC_ON",
        ("mask_former_semantic",),
        "ade20k/semantic-segmentation/maskformer2_R50_bs16_160k.yaml",
    ),
    "panoptic": (
        "PANOPTIC_ON",
        ("mask_former_panoptic", "coco_panoptic_lsj", "detr_panoptic"),
        "coco/panoptic-segmentation/maskformer2_R50_bs16_50ep.yaml",
    ),
}


SHOWN = 8  # class names in a message


@dataclass(frozen=True)
class Classes:
    """The classes that datasets share."""

    names: list[str]
    source: str  # the file that names them, or how they were found
    ignore_value: int | None = None  # of label files; None: there are none

    def __str__(self) -> str:
        return ", ".join(self.names[:SHOWN]) + ", ..." * (len(self.names) > SHOWN)


def derive_from_data(cfg: CfgNode, eval_only: bool = False) -> None:
    """Register a config's own datasets, and set in it what follows from them.

    That is MODEL.SEM_SEG_HEAD.NUM_CLASSES and IGNORE_VALUE, and DATASETS.CLASS_NAMES, so that the
    saved config does without counting again. An evaluation needs no training set: own ones leave
    DATASETS.TRAIN then.

    Raises:
        FileNotFoundError, ValueError: files are missing or contradict each other, or the config
            is one of another task.
    """
    own = [parse(n) for n in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST) if is_own(n)]
    if not own:
        return
    if eval_only:
        cfg.DATASETS.TRAIN = tuple(name for name in cfg.DATASETS.TRAIN if not is_own(name))
        # A training set that is still there may show classes that the test set does not.
        own = [s for s in own if s.name in cfg.DATASETS.TEST or all(map(os.path.exists, s.paths))]
    _check_task(cfg)
    classes = register_own_datasets([s.name for s in own], cfg.DATASETS.CLASS_NAMES)
    if classes is None:
        return
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = len(classes.names)
    cfg.DATASETS.CLASS_NAMES = classes.names
    logger.info("NUM_CLASSES %d, from %s: %s", len(classes.names), classes.source, classes)
    if classes.ignore_value is not None:
        cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE = classes.ignore_value
        logger.info("IGNORE_VALUE %d", classes.ignore_value)


def register_from_config(cfg: CfgNode) -> None:
    """Register the own datasets of a config that `derive_from_data` has seen in another process."""
    names = [name for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST) if is_own(name)]
    missing = [name for name in names if name not in DatasetCatalog.list()]
    register_own_datasets(missing, cfg.DATASETS.CLASS_NAMES)


def register_own_datasets(names: Sequence[str], class_names: Sequence[str] = ()) -> Classes | None:
    """Put own datasets into detectron2's catalogs, each under its name as it is written.

    Datasets that are registered together have the same classes. Where no file names them and
    `class_names` does not either, they are counted in the label files: class_0, class_1, ...

    Raises:
        FileNotFoundError, ValueError: files are missing or contradict each other.
    """
    spellings = [parse(name) for name in names]
    if not spellings:
        return None
    described = [READERS[s.kind].describe(*s.paths) for s in spellings]
    classes = _agree(described, list(class_names)) or _count(spellings)
    ignore_values = {d.metadata["ignore_label"] for d in described if "ignore_label" in d.metadata}
    if len(ignore_values) > 1:
        values = " and ".join(map(str, sorted(ignore_values)))
        raise ValueError(f"{', '.join(names)} ignore the values {values}; make them agree")
    for spelling, description in zip(spellings, described):
        lists = dict.fromkeys(description.class_lists, classes.names)
        register(spelling.name, partial(_load, spelling.name), **description.metadata, **lists)
    return replace(classes, ignore_value=next(iter(ignore_values), None))


def load_own_dataset(name: str) -> tuple[list[dict], list[Problem]]:
    """The samples that can be used, and what is wrong with the others.

    Raises:
        FileNotFoundError, ValueError: it cannot be read at all.
    """
    spelling = parse(name)
    return READERS[spelling.kind].load(*spelling.paths)


def _load(name: str) -> list[dict]:
    samples, problems = load_own_dataset(name)
    refuse_fatal(name, problems)
    return samples


def _agree(described: list[Description], class_names: list[str]) -> Classes | None:
    """The classes that the files name, and `class_names`, if either do."""
    named = [Classes(d.classes, d.source) for d in described if d.classes is not None]
    if class_names:
        named.insert(0, Classes(class_names, "DATASETS.CLASS_NAMES"))
    for other in named[1:]:
        if other.names != named[0].names:
            raise ValueError(
                f"{named[0].source} names {len(named[0].names)} classes ({named[0]}), but "
                f"{other.source} {len(other.names)} ({other}); make them the same, in one order"
            )
    return named[-1] if named else None  # a file says more than the config that was made from it


def _count(spellings: Sequence[Spelling]) -> Classes:
    """The classes of semantic datasets whose files do not name them."""
    samples = [sample for s in spellings for sample in _load(s.name)]
    values = frozenset().union(*values_of_labels([s["sem_seg_file_name"] for s in samples]))
    ignored = semantic.IGNORE_VALUE
    largest = max(values - {ignored}, default=0)
    folder = " and ".join(dict.fromkeys(s.paths[1] for s in spellings))
    if largest == 0:
        raise ValueError(
            f"{folder}: the labels hold no values but {', '.join(map(str, sorted(values)))}, and "
            f"{ignored} means that nobody labelled the pixel; save class indices 0, 1, ..."
        )
    names = [f"class_{index}" for index in range(largest + 1)]
    return Classes(names, f"the values in {folder} (name them in a classes.txt there)")


def _check_task(cfg: CfgNode) -> None:
    """
    Raises:
        ValueError: the config trains or tests for another task than an own dataset is for.
    """
    test, mapper = cfg.MODEL.MASK_FORMER.TEST, cfg.INPUT.DATASET_MAPPER_NAME
    for split in ("TRAIN", "TEST"):
        for name in filter(is_own, cfg.DATASETS[split]):
            switch, mappers, config = TASKS[parse(name).kind]
            if split == "TRAIN" and mapper not in mappers:
                found = f"INPUT.DATASET_MAPPER_NAME={mapper} is for other data"
            elif split == "TEST" and not test[switch]:
                found = f"MODEL.MASK_FORMER.TEST.{switch} is False"
            else:
                continue
            raise ValueError(
                f"DATASETS.{split}: {name} does not suit the config, because {found}; "
                f"take a config like configs/{config}"
            )
