"""Saved predictions in the place of a model."""

import os
from collections.abc import Collection, Sequence
from pathlib import Path

from mask2former.evaluation.predictions.folder import FOLDER, folder_of
from mask2former.evaluation.predictions.formats import formats_of
from mask2former.files import open_picture


class PredictionReader:
    """Called as a model is, with a dataset's dicts, it returns what the model returned.

    Args:
        samples: all of the dataset.
        folder: see `find_folder`; made by `PredictionWriter`, or by others in the same formats.
        outputs: which of the model's; they are there.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: it is broken, or of another dataset.
    """

    def __init__(
        self, dataset_name: str, samples: Sequence[dict], folder: Path, outputs: Collection[str]
    ) -> None:
        formats = formats_of(dataset_name)
        self._formats = [format(dataset_name) for format in formats if format.output in outputs]
        for format in self._formats:
            format.open(folder, samples)

    def __call__(self, inputs: list[dict]) -> list[dict]:
        """
        Args:
            inputs: dicts with height and width.

        Raises:
            FileNotFoundError: there is no prediction of an image.
            ValueError: it is broken, of another size, or of classes that the dataset has not.
        """
        return [{f.output: f.read(sample) for f in self._formats} for sample in inputs]


def with_size(sample: dict) -> dict:
    """A dataset's dict with height and width: those of the picture, where it has none.

    Raises:
        FileNotFoundError, ValueError: the picture is not there, or broken.
    """
    if "height" in sample and "width" in sample:
        return sample
    with open_picture(sample["file_name"], "prepare the dataset again") as image:
        return {**sample, "height": image.height, "width": image.width}


def find_folder(predictions: Path, dataset_name: str, is_only: bool) -> Path:
    """Where the predictions of a dataset are.

    Args:
        predictions: the folder of all datasets, or what has it: OUTPUT_DIR/inference/predictions,
            OUTPUT_DIR/inference.
        is_only: there is no other dataset; then it may also be the folder of this one.

    Raises:
        FileNotFoundError: there is none.
    """
    places = [folder_of(dataset_name, parent) for parent in (predictions, predictions / FOLDER)]
    for place in (*places, *[predictions] * is_only):
        if place.is_dir():
            return place
    raise FileNotFoundError(
        f"{predictions}: no folder {os.path.basename(places[0])} in it; name the folder that has "
        f"the predictions of {dataset_name}"
    )


def outputs_there(folder: Path, dataset_name: str) -> set[str]:
    """Of which of a model's outputs a dataset's folder has predictions.

    Raises:
        FileNotFoundError: of none.
    """
    formats = formats_of(dataset_name)
    there = {format.output for format in formats if (folder / format.entry).exists()}
    if not there:
        names = ", ".join(format.entry for format in formats)
        raise FileNotFoundError(
            f"{folder}: no predictions of {dataset_name}, which would be {names}; name the folder "
            "that has them"
        )
    return there
