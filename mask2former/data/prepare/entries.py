"""One JSON about many pictures, made in parallel, an entry a picture, and resumable.

Until all are there, each picture's entry waits in a file of its own beside the JSON.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mask2former.files import atomic_file


def make_json(
    target: Path,
    sources: Mapping[str, Path],
    make_entry: Callable[[Path], Any],
    merge: Callable[[list], dict],
    run: Callable[..., Any],
    has_files: Callable[[Path], bool] = lambda source: True,
) -> None:
    """Write `target`, unless it is there and lists the images of `sources`.

    Args:
        sources: image id -> the file that is looked at, in the order of the JSON.
        make_entry: from a source to what is said about it, and to files besides; of the top level
            of a module, so that other processes find it.
        merge: from all entries to the content of the JSON, with "images" of an "id".
        run: `for_each` with its options.
        has_files: whether the files that `make_entry` writes for a source are there and whole.
    """
    if _image_ids(target) == list(sources) and all(map(has_files, sources.values())):
        return
    directory = target.with_name(f".{target.name}.entries")
    directory.mkdir(exist_ok=True)
    entries = {directory / f"{image_id}.json": source for image_id, source in sources.items()}
    run(
        partial(_write_entry, make_entry=make_entry),
        list(entries.items()),
        target.name,
        is_done=lambda job: job[0].is_file() and has_files(job[1]),
    )
    content = merge([json.loads(entry.read_text(encoding="utf-8")) for entry in entries])
    with atomic_file(target) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")
    shutil.rmtree(directory)


def _write_entry(job: tuple[Path, Path], make_entry: Callable[[Path], Any]) -> None:
    entry, source = job
    content = make_entry(source)
    with atomic_file(entry) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")


def _image_ids(target: Path) -> list | None:
    """Of the images in the JSON; None if it is not there, or not whole."""
    if not target.is_file():
        return None
    try:
        return [image["id"] for image in json.loads(target.read_text(encoding="utf-8"))["images"]]
    except (ValueError, KeyError, TypeError):  # cut off, or of another form
        return None
