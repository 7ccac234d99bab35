"""Panoptic Quality without a file for each prediction: an image is counted and forgotten."""

import logging
import os
from collections import OrderedDict

import numpy as np
import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils.file_io import PathManager
from tabulate import tabulate
from torch import Tensor

from mask2former.evaluation.panoptic_quality import (
    VOID,
    TrueSegments,
    count_image,
    joint_histogram,
    mean_quality,
    quality,
)
from mask2former.evaluation.processes import sum_over_processes
from mask2former.evaluation.read_ahead import ReadAhead
from mask2former.evaluation.segment_ids import read_segment_ids
from mask2former.files import read_json

logger = logging.getLogger(__name__)

SCORES = ("PQ", "SQ", "RQ")
# Suffix of the metrics -> whose they are, and whether these are things
GROUPS = {"": ("All", (0, 1)), "_th": ("Things", (1,)), "_st": ("Stuff", (0,))}

Segment = dict  # "id", "category_id" and what else is known of it


class PanopticEvaluator(DatasetEvaluator):
    """PQ, SQ and RQ of all categories, of things (_th) and of stuff (_st), in percent.

    What is counted, and what is a mistake, is as in panopticapi, which wants all predictions as
    PNGs. Here they are compared with the ground truth where they are, and what is kept is four
    numbers a category.

    Args:
        dataset_name: its metadata have `panoptic_json` and `panoptic_root`, the ground truth, and
            {thing,stuff}_dataset_id_to_contiguous_id, by which predicted classes become categories.

    Raises:
        FileNotFoundError: there is no ground truth.
        ValueError: its JSON is broken, or another kind of JSON.
    """

    def __init__(self, dataset_name: str) -> None:
        metadata = MetadataCatalog.get(dataset_name)
        self._dataset_name = dataset_name
        self._root = PathManager.get_local_path(metadata.panoptic_root)
        self._json = PathManager.get_local_path(metadata.panoptic_json)
        content = read_json(self._json, "prepare the dataset", "prepare the dataset again")
        for key in ("annotations", "categories"):
            if key not in content:
                raise ValueError(f"{self._json}: no {key} in it; prepare the dataset again")
        self._truth = {image["image_id"]: image for image in content["annotations"]}
        self._file = {i: os.path.join(self._root, t["file_name"]) for i, t in self._truth.items()}
        file = self._file
        self._true_ids = ReadAhead(list(file), lambda image_id: read_segment_ids(file[image_id]))
        categories = content["categories"]
        self._index = {category["id"]: i for i, category in enumerate(categories)}
        self._names = [str(category.get("name", category["id"])) for category in categories]
        self._is_thing = np.array([category["isthing"] for category in categories])  # (K,) 0, 1
        self._category_of = {  # isthing -> contiguous id -> category id
            is_thing: {contiguous: category for category, contiguous in to_contiguous.items()}
            for is_thing, to_contiguous in (
                (True, metadata.thing_dataset_id_to_contiguous_id),
                (False, metadata.stuff_dataset_id_to_contiguous_id),
            )
        }
        self.reset()

    def reset(self) -> None:
        self._counts = np.zeros((len(self._names), 4))  # of `count_image`
        self._seen: set[int | str] = set()  # ids of images
        self._true_ids.stop()

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Count.

        Args:
            inputs: "image_id" and "file_name" of each image; one that the ground truth does not
                have counts nothing, and a second time it counts nothing more.
            outputs: "panoptic_seg" of each: segment ids (H,W), 0 for none, and a list of {"id",
                "category_id", "isthing"}.

        Raises:
            FileNotFoundError: an image has no ground truth.
            ValueError: it has another size, or map and list of a prediction contradict each other.
        """
        for sample, output in zip(inputs, outputs):
            image_id = sample["image_id"]
            if image_id in self._truth and image_id not in self._seen:
                name = f"the prediction for {sample.get('file_name', image_id)}"
                self._counts += self._count(*output["panoptic_seg"], image_id, name)
                self._seen.add(image_id)

    def _count(
        self, ids: Tensor, segments: list[Segment], image_id: int | str, name: str
    ) -> np.ndarray:
        truth, (reading,) = self._truth[image_id], self._true_ids(image_id)
        predicted = self._categories_of(segments, name)
        true_ids = torch.from_numpy(reading.result())
        if true_ids.shape != ids.shape:
            raise ValueError(
                f"{self._file[image_id]}: its size is {tuple(true_ids.shape)}, and that of {name} "
                f"is {tuple(ids.shape)}; check the dataset's height and width"
            )
        known = {s["id"]: s for s in truth["segments_info"] if s["category_id"] in self._index}
        pixels = joint_histogram(true_ids.to(ids.device), ids, list(known), list(predicted))
        if pixels[:, -1].any() or not pixels.any(0)[1:-1].all():
            painted = set(torch.unique(ids).tolist()) - {VOID}
            raise ValueError(
                f"{name}: its map has segments {sorted(painted - predicted.keys())} that are not "
                f"in its list, which has {sorted(predicted.keys() - painted)} that are not in the "
                "map; give both the same segments"
            )
        segments_of_truth = TrueSegments(
            np.array([self._index[s["category_id"]] for s in known.values()], np.int64),
            np.array([bool(s.get("iscrowd")) for s in known.values()], bool),
            np.array([s.get("area", np.nan) for s in known.values()], np.float64),
        )
        categories = np.array(list(predicted.values()), np.int64)
        return count_image(pixels, segments_of_truth, categories, len(self._names))

    def _categories_of(self, segments: list[Segment], name: str) -> dict[int, int]:
        """Segment id -> 0..K-1"""
        categories = {}
        for segment in segments:
            contiguous, is_thing = segment["category_id"], bool(segment["isthing"])
            category = self._category_of[is_thing].get(contiguous)
            if category not in self._index:
                raise ValueError(
                    f"{name}: a segment of {'thing' if is_thing else 'stuff'} {contiguous}, which "
                    f"{self._dataset_name} has not; evaluate a model of its classes"
                )
            categories[segment["id"]] = self._index[category]
        return categories

    def evaluate(self) -> OrderedDict | None:
        """
        Returns:
            on the main process {"panoptic_seg": {"PQ", "SQ", "RQ", "PQ_th", .., "RQ_st"}}, NaN over
            no categories, and "PQ-person" and so on for each category, NaN for one that neither was
            there nor predicted.

        Raises:
            ValueError: an image of the ground truth was not predicted, or two processes did it.
        """
        self._true_ids.stop()
        sums = sum_over_processes([self._counts], self._seen, self._dataset_name)
        if sums is None:
            return None
        (counts,), seen = sums
        without = [image_id for image_id in self._truth if image_id not in seen]
        if without:
            raise ValueError(
                f"{len(without)} images of {self._json} have no prediction (the first: "
                f"{without[0]}); predict all of them"
            )
        scores = quality(counts)  # (K,3)
        results, rows = {}, []
        for suffix, (group, is_thing) in GROUPS.items():
            means, number = mean_quality(scores, np.isin(self._is_thing, is_thing))
            results |= {f"{name}{suffix}": value for name, value in zip(SCORES, means)}
            rows.append([group, *means, number])
        results |= {f"PQ-{name}": pq for name, pq in zip(self._names, scores[:, 0].tolist())}
        of_each = [[name, *values] for name, values in zip(self._names, scores.tolist())]
        logger.info("Panoptic Quality in percent:\n%s", _table(rows, "categories"))
        logger.debug("Panoptic Quality of each category:\n%s", _table(of_each))
        return OrderedDict(panoptic_seg=results)


def _table(rows: list[list], *more: str) -> str:
    return tabulate(rows, headers=["", *SCORES, *more], tablefmt="pipe", floatfmt=".3f")
