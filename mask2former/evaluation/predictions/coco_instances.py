"""Instances as COCO's results: one JSON of boxes, scores and run lengths."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data import MetadataCatalog
from detectron2.structures import Boxes, BoxMode, Instances

from mask2former.evaluation.predictions.format import Format, check_size
from mask2former.evaluation.predictions.png import ADVICE, box_of
from mask2former.files import read_json
from mask2former.layers.packed_masks import PackedMasks
from mask2former.layers.run_lengths import counts_of, encode

KEYS = ("image_id", "category_id", "score", "segmentation")


class CocoInstances(Format):
    """coco_instances_results.json. An image that it does not list has no instances.

    Instances of classes that have no category id, as stuff has none, are not written.
    """

    output = "instances"
    entry = "coco_instances_results.json"
    brackets = ("[", "]")

    def __init__(self, dataset_name: str) -> None:
        super().__init__(dataset_name)
        # Category id -> class; None: they are the same, as COCOEvaluator has it.
        self.class_of = MetadataCatalog.get(dataset_name).get("thing_dataset_id_to_contiguous_id")
        self.category_of = {i: category for category, i in (self.class_of or {}).items()}

    def write(self, folder: Path, sample: dict, value: Instances) -> list[dict]:
        categories = value.pred_classes.tolist()
        if self.class_of is not None:
            categories = [self.category_of.get(contiguous) for contiguous in categories]
        boxes = value.pred_boxes.tensor.cpu()
        boxes = BoxMode.convert(boxes, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS).tolist()
        columns = categories, boxes, value.scores.tolist(), encode(value.pred_masks)
        return [
            {
                "image_id": sample["image_id"],
                "category_id": category,
                "bbox": box,
                "score": score,
                "segmentation": {"size": mask["size"], "counts": mask["counts"].decode("ascii")},
            }
            for category, box, score, mask in zip(*columns)
            if category is not None
        ]

    def open(self, folder: Path, samples: Sequence[dict]) -> None:
        self.path = folder / self.entry
        results = read_json(self.path, ADVICE, ADVICE)
        if not isinstance(results, list):
            raise ValueError(f"{self.path}: no list; COCO's results are a list of instances")
        known = {sample["image_id"] for sample in samples}
        self.of_image: dict[int | str, list[dict]] = defaultdict(list)
        for number, result in enumerate(results):
            problem = self._problem(result, known)
            if problem is not None:
                raise ValueError(f"{self.path}: result {number} {problem}")
            self.of_image[result["image_id"]].append(result)

    def _problem(self, result: Any, known: set) -> str | None:
        missing = [k for k in KEYS if not isinstance(result, dict) or k not in result]
        if missing:
            return f"has no {missing[0]}; COCO's results have {', '.join(KEYS)}"
        for key, found, there in (
            ("image", result["image_id"], known),
            ("category", result["category_id"], self.class_of),
        ):
            if there is not None and found not in there:
                return (
                    f"is of {key} {found!r}, which {self.dataset_name} does not have; judge it as "
                    "the dataset that was predicted"
                )
        return None

    def read(self, sample: dict) -> Instances:
        """PackedMasks, and scores of float64; boxes are those of the masks where none are given."""
        size = sample["height"], sample["width"]
        results = self.of_image.get(sample["image_id"], [])
        masks = PackedMasks.zeros((len(results), *size))
        boxes = np.zeros((len(results), 4))
        for number, result in enumerate(results):
            runs = self._runs(result["segmentation"], sample)
            bits = masks.bits[number].numpy()  # (H,B), written into
            fill(bits, runs)
            x, y, width, height = result.get("bbox") or box_of(bits)
            boxes[number] = x, y, x + width, y + height
        classes = [result["category_id"] for result in results]
        if self.class_of is not None:
            classes = [self.class_of[category] for category in classes]
        return Instances(
            size,
            pred_masks=masks,
            pred_boxes=Boxes(torch.from_numpy(boxes)),
            # As they stand there: rounded ones might change places.
            scores=torch.tensor([r["score"] for r in results], dtype=torch.float64),
            pred_classes=torch.tensor(classes, dtype=torch.int64),
        )

    def _runs(self, mask: Any, sample: dict) -> np.ndarray:
        """The lengths of a mask's runs, (R,) int64, that fit the picture."""
        where = f"{self.path}: a mask of {sample['file_name']}"
        if not isinstance(mask, dict) or not mask.keys() >= {"size", "counts"}:
            raise ValueError(f"{where} is none of run lengths; give COCO's, with size and counts")
        check_size(mask["size"], sample, where)
        counts = mask["counts"]
        try:
            runs = np.array(counts, np.int64) if isinstance(counts, list) else counts_of(counts)
        except ValueError as error:
            raise ValueError(f"{where} has broken run lengths ({error}); {ADVICE}") from error
        if len(runs) == 0 or runs.min() < 0 or runs.sum() != sample["height"] * sample["width"]:
            raise ValueError(
                f"{where} has run lengths of another picture, of {runs.sum()} pixels; {ADVICE}"
            )
        return runs


def fill(bits: np.ndarray, runs: np.ndarray) -> None:
    """Draw a mask, given by its runs (R,), into rows of bits (H,B), which are 0.

    Only its columns are made, from a whole byte on: most masks are small.
    """
    height, ends = len(bits), runs.cumsum()
    inside = np.flatnonzero(runs[1::2]) * 2 + 1
    if not len(inside):
        return
    first = (ends[inside[0]] - runs[inside[0]]) // height // 8 * 8
    last = -(-ends[inside[-1]] // height)
    lengths = np.diff(ends.clip(first * height, last * height), prepend=first * height)
    columns = np.repeat(np.arange(len(runs)) % 2 == 1, lengths).reshape(last - first, height)
    rows = np.packbits(np.ascontiguousarray(columns.T), axis=1)
    bits[:, first // 8 : first // 8 + rows.shape[1]] = rows
