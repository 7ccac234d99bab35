"""Saving predictions while they are judged."""

import json
import logging
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TextIO

from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from mask2former.evaluation.predictions.folder import FOLDER, begin, finish, folder_of
from mask2former.evaluation.predictions.format import Format
from mask2former.evaluation.predictions.formats import formats_of

logger = logging.getLogger(__name__)


class PredictionWriter(DatasetEvaluator):
    """Writes what a model returns, in the formats of `formats_of`; it measures nothing.

    Nothing is kept in memory. The folder appears when all of it is there, in place of that of an
    earlier evaluation; until then all processes write into a hidden one beside it.

    Args:
        outputs: which of the model's.
        output_dir: of the evaluation; the folder is predictions/DATASET in it.
    """

    def __init__(self, dataset_name: str, outputs: Collection[str], output_dir: str) -> None:
        self._dataset_name = dataset_name
        self._outputs = set(outputs)
        self._folder = folder_of(dataset_name, Path(output_dir) / FOLDER)

    def reset(self) -> None:
        """Begin a new folder. All processes do this, and `evaluate`, at the same time.

        Raises:
            FileNotFoundError: they do not see the same folder.
        """
        # Now, because a dataset's loader may have set its metadata meanwhile.
        name = self._dataset_name
        self._formats = [f(name) for f in formats_of(name) if f.output in self._outputs]
        self._seen: set[str] = set()
        self._half = begin(self._folder)

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Write what the model returned of each image; of one that comes twice, the first."""
        for sample, output in zip(inputs, outputs):
            if sample["file_name"] in self._seen:
                continue
            self._seen.add(sample["file_name"])
            for format in self._formats:
                entries = format.write(self._half, sample, output[format.output])
                if format.brackets:
                    with _part(self._half, format, comm.get_rank()).open("a") as part:
                        part.write(json.dumps([sample["file_name"], entries]) + "\n")

    def evaluate(self) -> None:
        """Let the folder be seen, once all processes have written their images."""
        comm.synchronize()
        if not comm.is_main_process():
            return
        for format in self._formats:
            if format.brackets:
                parts = sorted(self._half.glob(_part(self._half, format, "*").name))
                with (self._half / format.entry).open("w") as file:
                    _write_list(file, format.brackets, _entries(parts))
                for part in parts:
                    part.unlink()
        replaced = " (in place of earlier ones)" if finish(self._half, self._folder) else ""
        logger.info("Predictions: %s%s", self._folder, replaced)


def _part(folder: Path, format: Format, rank: int | str) -> Path:
    """A process's share of a JSON: lines of a picture and the entries of it."""
    return folder / f".{format.entry}.part_{rank}"


def _entries(parts: Iterable[Path]) -> Iterator[dict]:
    """Of all images; of one that two processes had, the first."""
    seen = set()
    for part in parts:
        with part.open() as lines:
            for file_name, entries in map(json.loads, lines):
                if file_name not in seen:
                    yield from entries
                seen.add(file_name)


def _write_list(file: TextIO, brackets: tuple[str, str], entries: Iterable[dict]) -> None:
    """JSON that need not be in memory all at once."""
    file.write(brackets[0])
    for number, entry in enumerate(entries):
        file.write(",\n" if number else "\n")
        json.dump(entry, file)
    file.write(f"\n{brackets[1]}\n")
