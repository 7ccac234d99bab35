"""The class of each pixel as PNGs."""

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from torch import Tensor

from mask2former.evaluation.confusion import predicted_labels
from mask2former.evaluation.predictions.format import Format, check_size, no_prediction
from mask2former.evaluation.predictions.png import ADVICE, write_png
from mask2former.files import read_numbers

MOST_CLASSES_OF_8_BITS = 255  # 255 itself says of most datasets' pixels that they have no class


class LabelMaps(Format):
    """sem_seg/*.png with contiguous class ids, of 8 bits, or of 16 for more than 255 classes.

    Their names are the pictures', with the folders below the one that all pictures share.
    """

    output = "sem_seg"
    entry = "sem_seg"

    def __init__(self, dataset_name: str) -> None:
        super().__init__(dataset_name)
        self.num_classes = len(MetadataCatalog.get(dataset_name).stuff_classes)

    @cached_property
    def names(self) -> dict[str, str]:
        """Picture -> PNG."""
        return png_names([sample["file_name"] for sample in DatasetCatalog.get(self.dataset_name)])

    def write(self, folder: Path, sample: dict, value: Tensor) -> list[dict]:
        path = folder / self.entry / self.names[sample["file_name"]]
        path.parent.mkdir(parents=True, exist_ok=True)
        dtype = np.uint8 if self.num_classes <= MOST_CLASSES_OF_8_BITS else np.uint16
        write_png(path, predicted_labels(value).cpu().numpy().astype(dtype))
        return []

    def open(self, folder: Path, samples: Sequence[dict]) -> None:
        self.folder = folder / self.entry
        self.names = png_names([sample["file_name"] for sample in samples])

    def read(self, sample: dict) -> Tensor:
        """(H,W) int64"""
        path = self.folder / self.names[sample["file_name"]]
        if not path.is_file():
            raise no_prediction(path, sample["file_name"])
        labels = read_numbers(path, ADVICE)
        check_size(labels.shape, sample, path)
        if labels.max() >= self.num_classes:
            raise ValueError(
                f"{path}: it has the value {labels.max()}, but the classes of {self.dataset_name} "
                f"are 0..{self.num_classes - 1}; predict one of them for each pixel"
            )
        return torch.from_numpy(labels.astype(np.int64))


def png_names(files: Sequence[str]) -> dict[str, str]:
    """A PNG's name for each picture: its path below the folder that all share.

    If some pictures differ in their endings alone, all keep theirs before ".png".
    """
    paths = {file: os.path.abspath(file) for file in files}
    root = os.path.commonpath([os.path.dirname(path) for path in paths.values()])
    whole = {file: os.path.relpath(path, root) for file, path in paths.items()}
    stems = {file: os.path.splitext(name)[0] for file, name in whole.items()}
    names = stems if len(set(stems.values())) == len(set(whole.values())) else whole
    return {file: f"{name}.png" for file, name in names.items()}
