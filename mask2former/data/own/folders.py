"""Pictures in folders, and JSON files that list them."""

import os
from typing import Any

from mask2former.data.problems import Problem
from mask2former.files import read_json

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
SIZES = ("height", "width")  # in pixels


def files_below(folder: str, except_below: str | None = None) -> list[str]:
    """Paths relative to a folder, with "/", of all files in it and in its folders, sorted.

    What is hidden is left out.

    Args:
        except_below: a folder whose files do not count.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{folder}: no such folder; correct the dataset's name")
    excluded = os.path.realpath(except_below) if except_below else None
    found = []
    for here, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [
            name
            for name in folders
            if name[0] != "." and os.path.realpath(os.path.join(here, name)) != excluded
        ]
        inner = os.path.relpath(here, folder)
        found += [os.path.normpath(os.path.join(inner, name)) for name in names if name[0] != "."]
    return sorted(path.replace(os.sep, "/") for path in found)


def read_listing(path: str, keys: tuple[str, ...]) -> dict[str, Any]:
    """A JSON of COCO's form.

    Args:
        keys: lists that it must have.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no JSON, or lacks one of the lists.
    """
    content = read_json(path, "give a JSON in COCO's form", "give a whole JSON in COCO's form")
    for key in keys:
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise ValueError(
                f'{path}: no list "{key}" in it; give a JSON in COCO\'s form, which has '
                f"{', '.join(keys)}"
            )
    return content


def entries_by_id(
    entries: list[dict], what: str, keys: tuple[str, ...], path: str
) -> tuple[dict[Any, dict], list[Problem]]:
    """Entries of a list in a JSON by their "id", those left out that lack keys or repeat an id.

    Args:
        what: one of them, for messages.
        keys: that each of them must have.
    """
    found: dict[Any, dict] = {}
    problems = []
    for number, entry in enumerate(entries):
        missing = [k for k in keys if not isinstance(entry, dict) or not _has(entry, k)]
        if missing:
            kind = "whole number as " if missing[0] in SIZES else ""
            text = f'{path}: {what} {number} of the list has no {kind}"{missing[0]}"; add it'
            problems.append(Problem(f"{what} without {missing[0]}", text))
        elif entry["id"] in found:
            text = f"{path}: two {what}s have the id {entry['id']}; number them apart"
            problems.append(Problem(f"duplicate {what} id", text))
        else:
            found[entry["id"]] = entry
    return found, problems


def _has(entry: dict, key: str) -> bool:
    return isinstance(entry.get(key), int) if key in SIZES else entry.get(key) is not None


def category_ids(categories: list[dict], path: str) -> tuple[dict[Any, int], list[str]]:
    """Category id -> contiguous id in ascending order, and the classes' names in that order.

    Raises:
        ValueError: there are none, or they lack an id or a name, or repeat one.
    """
    by_id, problems = entries_by_id(categories, "category", ("id", "name"), path)
    if problems:
        raise ValueError(problems[0].text)
    if not all(isinstance(number, int) for number in by_id):
        raise ValueError(f"{path}: a category's id is no whole number; number them")
    names = [str(by_id[number]["name"]) for number in sorted(by_id)]
    check_names(names, path)
    return {number: index for index, number in enumerate(sorted(by_id))}, names


def check_names(names: list[str], path: str) -> None:
    """
    Raises:
        ValueError: there is no class, or two have one name.
    """
    if not names:
        raise ValueError(f"{path}: names no class; name at least one")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{path}: two classes have the name {twice[0]!r}; name them apart")


def pictures_of_list(
    images: dict[Any, dict], folder: str, path: str
) -> tuple[dict[Any, str], list[Problem]]:
    """Picture files by image id, those that are not there or come twice left out.

    Args:
        images: by id, each with "file_name".
        path: of the JSON, for messages.
    """
    there = set(files_below(folder))
    files: dict[Any, str] = {}
    seen: dict[str, Any] = {}
    problems = []
    for number, image in images.items():
        name = os.path.normpath(str(image["file_name"])).replace(os.sep, "/")
        if name not in there:
            text = f"{os.path.join(folder, name)}: no such file, but {path} lists it; "
            problems.append(Problem("missing picture", text + "copy it there or take it out"))
        elif name in seen:
            text = f"{path}: images {seen[name]} and {number} have the same file {name}; join them"
            problems.append(Problem("duplicate file name", text))
        else:
            files[number] = os.path.join(folder, name)
        seen.setdefault(name, number)
    return files, problems
