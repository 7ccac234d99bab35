"""All samples of a dataset, by its spelling or its catalog name, looked at one by one."""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

from detectron2.data import DatasetCatalog, MetadataCatalog

from mask2former.config import predicted_classes
from mask2former.data.check.objects import Rules, objects_of
from mask2former.data.errors import SampleError
from mask2former.data.files import for_each
from mask2former.data.own import coco, is_own, load_own_dataset, register_own_datasets
from mask2former.data.problems import Problem
from mask2former.data.sample_files import read_picture
from mask2former.data.targets import check_size
from mask2former.hints import nearest


@dataclass
class Findings:
    """What a dataset holds, and what is wrong with it."""

    name: str
    classes: list[str]
    rules: Rules
    samples: list[dict]  # those that could be listed
    problems: list[Problem] = field(default_factory=list)
    num_pixels: Counter[int] = field(default_factory=Counter)  # by class
    num_images: Counter[int] = field(default_factory=Counter)  # that show the class
    num_objects: Counter[int] = field(default_factory=Counter)  # masks of the class

    @property
    def is_fit(self) -> bool:
        """Whether a training would run through."""
        return not any(problem.is_fatal for problem in self.problems)


def check_dataset(name: str, num_workers: int = 1, show_progress: bool = True) -> Findings:
    """Look at every file and annotation of a dataset.

    Args:
        name: a spelling (docs/own_data.md) or a catalog name.
        num_workers: processes; 1 works in this one.

    Raises:
        FileNotFoundError, ValueError: it cannot be read at all.
    """
    samples, problems = _list_samples(name)
    metadata = MetadataCatalog.get(name)
    classes = list(predicted_classes(metadata) or ())
    rules = Rules(len(classes), metadata.get("ignore_label", 255))
    findings = Findings(name, classes, rules, samples, problems)
    findings.problems += _duplicates(samples)
    check = partial(check_sample, rules=rules)
    seen = for_each(check, samples, name, num_workers=num_workers, show_progress=show_progress)
    for areas, found in seen:
        findings.problems += found
        findings.num_images.update({category for category, _ in areas})
        findings.num_objects.update(category for category, _ in areas)
        for category, area in areas:
            findings.num_pixels[category] += area
    for index, class_name in enumerate(classes):
        if not findings.num_images[index]:
            text = f"{class_name}: no picture shows it; it will not be learned"
            findings.problems.append(Problem("class without instances", text, is_fatal=False))
    return findings


def check_sample(sample: dict, rules: Rules) -> tuple[list[tuple[int, int]], list[Problem]]:
    """The class and the pixels of each object, and what is wrong with the sample."""
    path = sample["file_name"]
    try:
        size = read_picture(path, "RGB").shape[:2]
    except SampleError as error:
        return [], [Problem("unreadable picture", str(error))]
    areas, problems = [], []
    if "height" in sample and "width" in sample:
        try:
            check_size(path, size, (sample["height"], sample["width"]), "annotation says")
        except SampleError as error:
            problems.append(Problem("size mismatch", str(error)))
    for found in objects_of(sample, size, rules):
        if isinstance(found, Problem):
            problems.append(found)
        else:
            category, mask = found
            areas.append((category, int(mask.sum())))
    return areas, problems


def _list_samples(name: str) -> tuple[list[dict], list[Problem]]:
    if is_own(name):
        register_own_datasets([name])
        samples, problems = load_own_dataset(name)
    elif name not in DatasetCatalog.list():
        raise ValueError(f"unknown dataset {name}{nearest(name, DatasetCatalog.list())}")
    else:
        metadata = MetadataCatalog.get(name)
        json_file = metadata.get("json_file") or ""
        if metadata.get("evaluator_type") == "coco" and os.path.isfile(json_file):
            samples, problems = coco.load(json_file, metadata.image_root)  # with all its faults
        else:
            samples, problems = DatasetCatalog.get(name), []
    if not samples and not problems:
        raise ValueError(f"{name}: no samples in it; correct its name or its files")
    return samples, problems


def _duplicates(samples: Iterable[dict]) -> list[Problem]:
    problems = []
    for key, what in (("image_id", "image id"), ("file_name", "file name")):
        counts = Counter(sample[key] for sample in samples if key in sample)
        for value, count in counts.items():
            if count > 1:
                text = f"{value}: {count} samples have this {what}; make it one"
                problems.append(Problem(f"duplicate {what}", text))
    return problems
