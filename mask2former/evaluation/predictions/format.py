"""What all formats of predictions have in common."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any


class Format:
    """How one output of a model lies in a folder, that of all images of a dataset.

    To be written: `write` each image. To be read: `open` the folder, then `read` each image.

    Args:
        dataset_name: its metadata say which ids its classes have in files.
    """

    output: str  # of the model
    entry: str  # the file or folder that shows that there are such predictions
    brackets: tuple[str, str] | None = None  # `entry` is a JSON, with these around what it lists

    def __init__(self, dataset_name: str) -> None:
        self.dataset_name = dataset_name

    def write(self, folder: Path, sample: dict, value: Any) -> list[dict]:
        """Write what has a file of its own, and return what the JSON is to list.

        Args:
            folder: is there.
            sample: what the model was given.
            value: what it returned as `output`.
        """
        raise NotImplementedError

    def open(self, folder: Path, samples: Sequence[dict]) -> None:
        """Look the folder through.

        Args:
            samples: the dataset's dicts.

        Raises:
            FileNotFoundError, ValueError: it cannot be read at all.
        """
        raise NotImplementedError

    def read(self, sample: dict) -> Any:
        """What the model returned as `output`.

        Args:
            sample: the dataset's dict, with height and width.

        Raises:
            FileNotFoundError: there is no prediction of this image.
            ValueError: it is broken, of another size, or of classes that the dataset has not.
        """
        raise NotImplementedError


def check_size(shape: Sequence[int], sample: dict, where: str | Path) -> None:
    """
    Raises:
        ValueError: a prediction (H,W) is not of its picture's size.
    """
    size = sample["height"], sample["width"]
    if tuple(shape) != size:
        raise ValueError(
            f"{where}: its height and width are {tuple(shape)}, but those of "
            f"{sample['file_name']} are {size}; predict at the size of the picture"
        )


def no_prediction(where: Path, image_file: str) -> FileNotFoundError:
    return FileNotFoundError(
        f"{where}: no prediction of {image_file}; predict all images of the dataset, and "
        "judge them as that dataset"
    )
