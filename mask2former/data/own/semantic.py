"""semantic:IMAGES:LABELS - pictures, and PNGs of the same names whose values are classes."""

import os
from typing import Any

from mask2former.data.own.description import Description
from mask2former.data.own.folders import PICTURES, check_names, files_below
from mask2former.data.problems import Problem
from mask2former.files import read_json

IGNORE_VALUE = 255
LABEL = ".png"
LEVELS = 3  # class files are looked for in LABELS and in the two folders above it


def describe(image_dir: str, label_dir: str) -> Description:
    """The classes of the nearest dataset.json or classes.txt; None if there is neither.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: the file of classes is not as it should be.
    """
    for folder in (image_dir, label_dir):
        if not os.path.isdir(folder):
            raise FileNotFoundError(f"{folder}: no such folder; correct the dataset's name")
    classes, ignore_value, source = _read_classes(label_dir)
    metadata = {
        "evaluator_type": "sem_seg",
        "image_root": image_dir,
        "sem_seg_root": label_dir,
        "ignore_label": ignore_value,
    }
    return Description(classes, source, ("stuff_classes",), metadata)


def _read_classes(label_dir: str) -> tuple[list[str] | None, int, str]:
    """Names, the ignored value, and where they stand."""
    folder = os.path.abspath(label_dir)
    for _ in range(LEVELS):
        table = os.path.join(folder, "dataset.json")
        if os.path.isfile(table):
            return *_from_table(table, read_json(table, "correct it", "correct it")), table
        lines = os.path.join(folder, "classes.txt")
        if os.path.isfile(lines):
            with open(lines, encoding="utf-8") as file:
                names = [line.strip() for line in file if line.strip()]
            check_names(names, lines)
            return names, IGNORE_VALUE, lines
        folder = os.path.dirname(folder)
    return None, IGNORE_VALUE, label_dir


def _from_table(path: str, table: Any) -> tuple[list[str], int]:
    names = table.get("classes") if isinstance(table, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f'{path}: no list of names as "classes" in it; add it')
    check_names(names, path)
    ignore_value = table.get("ignore_value", IGNORE_VALUE)
    if not isinstance(ignore_value, int) or not 0 <= ignore_value < 2**16:
        raise ValueError(f'{path}: "ignore_value" is {ignore_value!r}; give a value of the labels')
    return names, ignore_value


def load(image_dir: str, label_dir: str) -> tuple[list[dict], list[Problem]]:
    """Dataset dicts with file_name and sem_seg_file_name: those of which both are there.

    Raises:
        FileNotFoundError: a folder is missing, or has no such files.
    """
    pictures: dict[str, str] = {}
    problems = []
    for path in files_below(image_dir, except_below=label_dir):
        stem, ext = os.path.splitext(path)
        if ext.lower() not in PICTURES:
            continue
        if stem in pictures:
            text = f"{image_dir}: {pictures[stem]} and {path} differ only in their endings; "
            problems.append(Problem("duplicate file name", text + "take one of them out"))
        pictures.setdefault(stem, path)
    labels = {
        os.path.splitext(path)[0]: path
        for path in files_below(label_dir, except_below=image_dir)
        if path.lower().endswith(LABEL)
    }
    for found, folder, wanted in (
        (pictures, image_dir, f"pictures ({', '.join(PICTURES)})"),
        (labels, label_dir, f"labels ({LABEL})"),
    ):
        if not found:
            raise FileNotFoundError(f"{folder}: no {wanted} in it; correct the dataset's name")
    for stem in sorted(labels.keys() - pictures.keys()):
        text = f"{os.path.join(label_dir, labels[stem])}: no picture {stem}.* in {image_dir}; "
        problems.append(Problem("label without picture", text + "add it, or take the label out"))
    for stem in sorted(pictures.keys() - labels.keys()):
        text = f"{os.path.join(image_dir, pictures[stem])}: no label {stem}{LABEL} in {label_dir}; "
        problems.append(Problem("picture without label", text + "add it, or take the picture out"))
    dicts = [
        {
            "file_name": os.path.join(image_dir, pictures[stem]),
            "sem_seg_file_name": os.path.join(label_dir, labels[stem]),
        }
        for stem in sorted(pictures.keys() & labels.keys())
    ]
    return dicts, problems
