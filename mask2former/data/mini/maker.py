"""What all miniatures of datasets have in common."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image
from tqdm import tqdm

from mask2former.data.mini.labelled import draw_labelled
from mask2former.files import all_or_nothing, lock

_Scene = TypeVar("_Scene")

MIN_SIZE = 32  # of a picture's sides; a street needs some room


@dataclass(frozen=True)
class MiniSpec:
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


DEFAULT_SPEC = MiniSpec()


def make_mini(
    target: Path,
    spec: MiniSpec,
    write: Callable[[Path, str, int, _Scene], None],
    finish: Callable[[Path], None],
    show_progress: bool = True,
    *,
    draw: Callable[[int, int, tuple[int, ...]], _Scene] = draw_labelled,
    num_test: int = 0,
    keep: bool = False,
) -> None:
    """Draw a dataset's download into `target` and finish it, or leave nothing there.

    Args:
        write: (directory, "train", "val" or "test", number of the picture from 1, its scene) ->
            files.
        finish: (directory): what is done when all are drawn, as preparing them.
        draw: (height, width, seed) -> a scene.
        num_test: pictures of a split for testing.
        keep: a `target` that is there already is left as it is.

    Raises:
        FileExistsError: `target` is there already.
    """
    counts = {"train": spec.num_train, "val": spec.num_val, "test": num_test}
    jobs = [
        (split, split_number, index)
        for split_number, (split, count) in enumerate(counts.items())
        for index in range(count)
    ]
    with lock(target):
        if keep and target.is_dir():
            return
        if os.path.lexists(target):
            raise FileExistsError(
                f"{target}: is there already; delete it, or name another directory"
            )
        with all_or_nothing(target) as directory:
            for split, split_number, index in tqdm(
                jobs, desc=f"drawing {target.name}", unit="picture", disable=not show_progress
            ):
                scene = draw(spec.height, spec.width, (spec.seed, split_number, index))
                write(directory, split, index + 1, scene)
            finish(directory)


def save_picture(pixels: np.ndarray, path: Path) -> None:
    """Write an array as the picture that its suffix says, with the directories above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95)  # of a JPEG
