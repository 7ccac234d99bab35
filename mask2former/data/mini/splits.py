"""What the miniatures of datasets with pictures for training and validation have in common."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from mask2former.data.files import all_or_nothing, lock
from mask2former.data.mini.labelled import LabelledScene, draw_labelled

MIN_SIZE = 32  # of a picture's sides; a street needs some room


@dataclass(frozen=True)
class SplitSpec:
    """What is drawn. The same spec gives the same files, to the byte."""

    height: int = 192
    width: int = 256
    num_train: int = 32
    num_val: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.height, self.width) < MIN_SIZE:
            raise ValueError(
                f"pictures of {self.height}x{self.width}; draw them {MIN_SIZE}x{MIN_SIZE} or larger"
            )
        if min(self.num_train, self.num_val) < 1 or self.seed < 0:
            raise ValueError(
                f"{self.num_train} pictures for training and {self.num_val} for validation with "
                f"seed {self.seed}; give at least one of each, and a seed of 0 or more"
            )


DEFAULT_SPEC = SplitSpec()


def make_mini(
    target: Path,
    spec: SplitSpec,
    write: Callable[[Path, str, int, LabelledScene], None],
    finish: Callable[[Path], None],
    show_progress: bool = True,
) -> None:
    """Draw a dataset's download into `target` and prepare it, or leave nothing there.

    Args:
        write: (directory, "train" or "val", number of the picture from 1, its scene) -> files.
        finish: (directory): what is done when all are drawn; prepares them.

    Raises:
        FileExistsError: `target` is there already.
    """
    with lock(target):
        if os.path.lexists(target):
            raise FileExistsError(
                f"{target}: is there already; delete it, or name another directory"
            )
        jobs = [("train", 0, i) for i in range(spec.num_train)]
        jobs += [("val", 1, i) for i in range(spec.num_val)]
        with all_or_nothing(target) as directory:
            for split, split_number, index in tqdm(
                jobs, desc=f"drawing {target.name}", unit="picture", disable=not show_progress
            ):
                seed = (spec.seed, split_number, index)
                write(directory, split, index + 1, draw_labelled(spec.height, spec.width, seed))
            finish(directory)


def save_picture(pixels: np.ndarray, path: Path) -> None:
    """Write an array as the picture that its suffix says, with the directories above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95)  # of a JPEG
