"""Files that are whole or not there."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from iopath.common.file_io import file_lock
from PIL import Image, UnidentifiedImageError

PNG_END = b"IEND\xaeB`\x82"


def is_whole_png(path: Path) -> bool:
    """Whether the file is there and ends as a PNG ends; an interrupted write does not."""
    if not path.is_file() or path.stat().st_size < len(PNG_END):
        return False
    with path.open("rb") as file:
        file.seek(-len(PNG_END), os.SEEK_END)
        return file.read() == PNG_END


def read_json(path: str | Path, advice: str, if_broken: str = "") -> Any:
    """What a JSON file holds.

    Args:
        advice: what to do about a file that is missing; it ends the sentence.
        if_broken: what to do about a broken one, if that is not to delete it and do the same.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is cut off, or no JSON.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: no such file; {advice}")
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        if_broken = if_broken or f"delete it and {advice}"
        raise ValueError(f"{path}: not whole ({error}); {if_broken}") from error


@contextlib.contextmanager
def open_picture(path: str | Path, advice: str) -> Iterator[Image.Image]:
    """A picture, of which nothing but the header is read until its pixels are asked for.

    Args:
        advice: what to do about a picture that is missing or broken; it ends the sentence.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is cut off, or no picture; also when this shows within the block.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: no such file; {advice}")
    try:
        with Image.open(path) as image:
            yield image
    except (OSError, SyntaxError) as error:  # Pillow raises either on a broken file
        raise ValueError(
            f"{path}: not a whole picture ({picture_fault(error)}); {advice}"
        ) from error


def read_numbers(path: str | Path, advice: str) -> np.ndarray:
    """(H,W) of any integer type: a picture's pixels, or of a palette the indices.

    Args:
        advice: what to do about a picture that is missing or broken; it ends the sentence.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is cut off, no picture, or one of colours.
    """
    with open_picture(path, advice) as image:
        pixels = np.array(image)
    if pixels.ndim != 2 or pixels.dtype.kind not in "bui":
        raise ValueError(
            f"{path}: a picture of mode {image.mode}, but wanted is one whole number a pixel; "
            f"{advice}"
        )
    return pixels.view(np.uint8) if pixels.dtype == bool else pixels


def picture_fault(error: Exception) -> str:
    """What Pillow found, without the file's name, which it repeats."""
    return "of no known format" if isinstance(error, UnidentifiedImageError) else str(error)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path, which becomes `path` if the block ends well."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def all_or_nothing(target: Path) -> Iterator[Path]:
    """Yields a directory that appears as `target` if the block ends well. To be run locked."""
    prefix = f".{target.name}.half_"
    for left_by_a_killed_run in target.parent.glob(f"{prefix}*"):
        shutil.rmtree(left_by_a_killed_run)
    temporary = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    try:
        yield temporary
        temporary.chmod(0o755)  # mkdtemp's are the owner's only
        os.replace(temporary, target)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)


def lock(target: Path) -> contextlib.AbstractContextManager:
    """Held by one process at a time; the others wait."""
    target.parent.mkdir(parents=True, exist_ok=True)
    return file_lock(str(target.with_name(f".{target.name}")))
