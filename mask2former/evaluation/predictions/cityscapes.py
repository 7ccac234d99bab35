"""Predictions as cityscapesscripts and Cityscapes' server take them.

They find what belongs to an image by CITY_SEQUENCE_FRAME, with which both names begin.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from cityscapesscripts.helpers.labels import id2label, name2label
from detectron2.data import MetadataCatalog
from detectron2.structures import Boxes, BoxMode, Instances
from torch import Tensor

from mask2former.evaluation.cityscapes import LABEL_ID, NUM_LABELS
from mask2former.evaluation.confusion import predicted_labels
from mask2former.evaluation.predictions.format import Format, check_size, no_prediction
from mask2former.evaluation.predictions.png import (
    ADVICE,
    box_of,
    read_mask,
    write_png,
)
from mask2former.files import read_numbers
from mask2former.layers.packed_masks import PackedMasks

MASKS = "masks"
NO_CLASS = 255
TRAIN_ID = np.full(256, NO_CLASS)  # of each label id
TRAIN_ID[LABEL_ID] = range(len(LABEL_ID))


class CityscapesFormat(Format):
    """A folder with a file for each image, which is found as cityscapesscripts find it."""

    ending: str  # of these files

    def open(self, folder: Path, samples: Sequence[dict]) -> None:
        self.folder = folder / self.entry
        self.files = files_by_frame(self.folder, self.ending)

    def file_of(self, image_file: str) -> Path:
        """
        Raises:
            FileNotFoundError: there is none.
        """
        path = self.files.get(frame_of(image_file))
        if path is None:
            raise no_prediction(self.folder, image_file)
        return path


class CityscapesLabels(CityscapesFormat):
    """cityscapes_sem_seg/CITY_SEQUENCE_FRAME_labelIds.png, with label ids, not train ids."""

    output = "sem_seg"
    entry = "cityscapes_sem_seg"
    ending = ".png"

    def write(self, folder: Path, sample: dict, value: Tensor) -> list[dict]:
        folder = folder / self.entry
        folder.mkdir(exist_ok=True)
        train_ids = predicted_labels(value).cpu().numpy()
        name = f"{frame_of(sample['file_name'])}_labelIds.png"
        write_png(folder / name, LABEL_ID[train_ids].astype(np.uint8))
        return []

    def read(self, sample: dict) -> Tensor:
        """Train ids (H,W) int64"""
        path = self.file_of(sample["file_name"])
        label_ids = read_numbers(path, ADVICE)
        check_size(label_ids.shape, sample, path)
        train_ids = TRAIN_ID[label_ids.clip(max=NUM_LABELS)]
        if train_ids.max() == NO_CLASS:
            raise ValueError(
                f"{path}: it has the value {label_ids[train_ids == NO_CLASS][0]}, which is no "
                "label id that Cityscapes evaluates; predict one of these (not train ids) for "
                "each pixel"
            )
        return torch.from_numpy(train_ids)


class CityscapesInstances(CityscapesFormat):
    """cityscapes_instances/CITY_SEQUENCE_FRAME_pred.txt: a line an instance.

    It has the mask's PNG, which is not 0 within it, the label id, and the score.
    """

    output = "instances"
    entry = "cityscapes_instances"
    ending = ".txt"

    def __init__(self, dataset_name: str) -> None:
        super().__init__(dataset_name)
        self.class_names = MetadataCatalog.get(dataset_name).thing_classes

    def write(self, folder: Path, sample: dict, value: Instances) -> list[dict]:
        folder = folder / self.entry
        (folder / MASKS).mkdir(parents=True, exist_ok=True)
        frame = frame_of(sample["file_name"])
        label_ids = [name2label[self.class_names[i]].id for i in value.pred_classes.tolist()]
        lines = []
        for number, (mask, label_id, score) in enumerate(
            zip(value.pred_masks, label_ids, value.scores.tolist())
        ):
            name = f"{MASKS}/{frame}_{number:03d}.png"
            write_png(folder / name, mask.cpu().numpy())
            lines.append(f"{name} {label_id} {score!r}\n")
        (folder / f"{frame}_pred.txt").write_text("".join(lines), encoding="utf-8")
        return []

    def read(self, sample: dict) -> Instances:
        """PackedMasks, scores of float64, and boxes around the masks."""
        path = self.file_of(sample["file_name"])
        size = sample["height"], sample["width"]
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        masks = PackedMasks.zeros((len(lines), *size))
        boxes, classes, scores = torch.zeros(len(lines), 4), [], []
        for number, line in enumerate(lines):
            name, category, score = self._columns(line, path)
            bits, found = read_mask(path.parent / name)
            check_size(found, sample, path.parent / name)
            masks.bits[number] = torch.from_numpy(bits.copy())
            boxes[number] = torch.tensor(box_of(bits))
            classes.append(category)
            scores.append(score)
        return Instances(
            size,
            pred_masks=masks,
            pred_boxes=Boxes(BoxMode.convert(boxes, BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)),
            # As they stand there: rounded ones might change places.
            scores=torch.tensor(scores, dtype=torch.float64),
            pred_classes=torch.tensor(classes, dtype=torch.int64),
        )

    def _columns(self, line: str, path: Path) -> tuple[str, int, float]:
        """Mask, class and score."""
        try:
            name, label_id, score = line.split(" ")
            label, score = id2label[int(label_id)].name, float(score)
        except (ValueError, KeyError) as error:
            raise ValueError(
                f"{path}: the line {line!r} is not a mask's PNG, a label id and a score; {ADVICE}"
            ) from error
        if label not in self.class_names:
            raise ValueError(
                f"{path}: an instance of the label {label_id} ({label}), which {self.dataset_name} "
                "does not have; predict its classes only"
            )
        return name, self.class_names.index(label), score


def frame_of(file_name: str) -> str:
    """CITY_SEQUENCE_FRAME of a picture, a prediction or ground truth."""
    return "_".join(Path(file_name).stem.split("_")[:3])


def files_by_frame(folder: Path, ending: str) -> dict[str, Path]:
    """CITY_SEQUENCE_FRAME -> the file below a folder.

    Raises:
        ValueError: a frame has two.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob(f"*{ending}")):
        frame = frame_of(path.name)
        if frame in found:
            raise ValueError(
                f"{found[frame]} and {path} are both predictions of {frame}; take one of them out"
            )
        found[frame] = path
    return found
