"""The names of datasets that say where the files lie: "semantic:IMAGES:LABELS" and so on."""

import os
import re
from dataclasses import dataclass

from detectron2.data import DatasetCatalog

# kind -> what is to be written after it, separated by colons
KINDS: dict[str, tuple[str, ...]] = {
    "coco": ("ANNOTATIONS.json", "IMAGES"),
    "semantic": ("IMAGES", "LABELS"),
    "panoptic": ("PANOPTIC.json", "IMAGES", "PNGS"),
}


@dataclass(frozen=True)
class Spelling:
    """A name, taken apart."""

    name: str
    kind: str  # of KINDS
    paths: tuple[str, ...]  # as many as the kind has, ~ expanded


def is_own(name: str) -> bool:
    """Whether a name says where its files lie, or tries to: it has a colon."""
    return name.partition(":")[0] in KINDS or (":" in name and name not in DatasetCatalog.list())


def parse(name: str) -> Spelling:
    """Take a name apart. A Windows drive ("C:\\data") may stand in it.

    Raises:
        ValueError: there is no such kind, or it has another number of paths.
    """
    kind, *parts = name.split(":")
    known = ", ".join(spelled(kind) for kind in KINDS)
    if kind not in KINDS:
        raise ValueError(f"dataset {name!r}: {kind!r} is no kind of dataset; write {known}")
    wanted = len(KINDS[kind])
    if len(parts) != wanted:
        parts = _with_drives(parts)
    if len(parts) != wanted or not all(parts):
        raise ValueError(
            f"dataset {name!r} has {sum(map(bool, parts))} paths after {kind!r}; "
            f"write {spelled(kind)}"
        )
    return Spelling(name, kind, tuple(os.path.expanduser(part) for part in parts))


def spelled(kind: str) -> str:
    """How names of a kind are written: "semantic:IMAGES:LABELS"."""
    return ":".join((kind, *KINDS[kind]))


def _with_drives(parts: list[str]) -> list[str]:
    """Put a drive's letter back before its path: C, \\data -> C:\\data."""
    joined: list[str] = []
    for part in parts:
        if joined and re.fullmatch("[A-Za-z]", joined[-1]) and part[:1] in ("\\", "/"):
            joined[-1] += f":{part}"
        else:
            joined.append(part)
    return joined
