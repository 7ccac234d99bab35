"""One JSON about many pictures, made in parallel, an entry a picture, and resumable.

Until all are there, each picture's entry waits in a file of its own beside the JSON.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mask2former.data.files import atomic_file


def make_json(
    target: Path,
    pictures: Sequence[Path],
    make_entry: Callable[[Path], Any],
    merge: Callable[[list], dict],
    run: Callable[..., None],
    has_files: Callable[[Path], bool] = lambda picture: True,
) -> None:
    """Write `target`, unless it is there and lists `pictures`.

    Args:
        pictures: in the order of the JSON. Their stems differ.
        make_entry: from a picture to what is said about it, and to files besides; of the top
            level of a module, so that other processes find it.
        merge: from all entries to the content of the JSON, with "images" of a "file_name".
        run: `for_each` with its options.
        has_files: whether the files that `make_entry` writes for a picture are there and whole.
    """
    if _lists(target) == [picture.name for picture in pictures] and all(map(has_files, pictures)):
        return
    entries = target.with_name(f".{target.name}.entries")
    entries.mkdir(exist_ok=True)
    missing = [p for p in pictures if not (_entry_file(entries, p).is_file() and has_files(p))]
    run(
        partial(_write_entry, make_entry=make_entry, entries=entries),
        missing,
        target.name,
        kept=len(pictures) - len(missing),
    )
    contents = [json.loads(_entry_file(entries, picture).read_text()) for picture in pictures]
    with atomic_file(target) as temporary:
        temporary.write_text(json.dumps(merge(contents)))
    shutil.rmtree(entries)


def _write_entry(picture: Path, make_entry: Callable[[Path], Any], entries: Path) -> None:
    entry = make_entry(picture)
    with atomic_file(_entry_file(entries, picture)) as temporary:
        temporary.write_text(json.dumps(entry))


def _entry_file(entries: Path, picture: Path) -> Path:
    return entries / f"{picture.stem}.json"


def _lists(target: Path) -> list[str] | None:
    """The names of the pictures in the JSON; None if it is not there, or not whole."""
    if not target.is_file():
        return None
    try:
        return [image["file_name"] for image in json.loads(target.read_text())["images"]]
    except (ValueError, KeyError):  # cut off by whatever wrote it before us
        return None
