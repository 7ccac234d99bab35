"""Where our own source text is, for the tests that read it."""

import ast
import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mask2former"
EMBEDDED = PACKAGE / "embedded"


def repository_files() -> Iterator[Path]:
    """Every file that is ours; not what runs, builds and data sets leave in a checkout."""
    leftovers = {"output", "build", "dist", "__pycache__"}
    for folder, folders, names in os.walk(ROOT):
        here = Path(folder)
        folders[:] = [
            f
            for f in folders
            if f not in leftovers
            and not f.endswith(".egg-info")
            and (not f.startswith(".") or f in (".ci", ".github"))
            and here != ROOT / "datasets"
        ]
        yield from (here / name for name in names)


def python_files(folder: Path = ROOT) -> list[Path]:
    return [p for p in repository_files() if p.suffix == ".py" and p.is_relative_to(folder)]


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()
