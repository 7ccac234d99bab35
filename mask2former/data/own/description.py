"""What is known of a user's dataset before its samples are listed."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Description:
    """Classes and metadata; detectron2's names."""

    classes: list[str] | None  # None: no file names them
    source: str  # the file that names them, or the folder whose files are to be counted
    class_lists: tuple[str, ...]  # keys of the metadata that hold the classes
    metadata: dict[str, Any] = field(default_factory=dict)  # without these keys
