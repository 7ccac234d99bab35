"""Average precision of the thing classes, of instance and of panoptic models.

N instances of an image of H x W pixels.
"""

import json
import logging
import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pycocotools.mask
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.coco import convert_to_coco_dict
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import BoxMode, Instances
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import create_small_table

from mask2former.evaluation.boundary import BOUNDARY_JUDGE
from mask2former.evaluation.coco_ap import (
    MAX_DETECTIONS,
    SHAPES,
    average_precision,
    check_truth,
    find_judge,
)
from mask2former.evaluation.stand_in import stand_in
from mask2former.files import read_json
from mask2former.layers.run_lengths import encode

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Detections:
    """What is kept of an image: some hundred bytes an instance, most of them its run lengths."""

    size: tuple[int, int]  # H, W
    categories: np.ndarray  # (N,) positions in the sorted ids of the categories
    scores: np.ndarray  # (N,)
    boxes: np.ndarray  # (N,4) as x, y, width, height
    counts: list[bytes] | None  # N times; None of a model without masks

    def results(self, image_id: int | str, category_ids: Sequence) -> Iterator[dict]:
        """The instances in COCO's format of results, but with bytes for counts."""
        categories = [category_ids[i] for i in self.categories.tolist()]
        counts = self.counts or [None] * len(categories)
        size = list(self.size)
        columns = categories, self.boxes.tolist(), self.scores.tolist(), counts
        for category, box, score, mask in zip(*columns, strict=True):
            result = {"image_id": image_id, "category_id": category, "bbox": box, "score": score}
            if mask is not None:
                result["segmentation"] = {"size": size, "counts": mask}
            yield result


class InstanceSegEvaluator(DatasetEvaluator):
    """AP of boxes and masks as COCOEvaluator has it, for any numbering of classes.

    It has the official Mask2Former's name. The categories are those of the ground truth. Of a
    panoptic model, whose classes are things and stuff, only those count that the metadata's
    `thing_dataset_id_to_contiguous_id` has. All images of the ground truth count, predicted or not,
    and an image that was predicted twice, by two processes or one, counts once.

    Where the metadata name no JSON, the annotations in the dataset's dicts are the ground truth.

    Args:
        dataset_name: its metadata's `json_file` is the ground truth in COCO's format.
        tasks: of "bbox" and "segm"; None: what the predictions have.
        distributed: join what all processes have; else each one evaluates its own.
        output_dir: gets coco_instances_results.json.
        max_dets_per_image: of an image and category only those with the highest scores; None: 100.
        use_fast_impl: let hotcoco judge, if it can be imported; else pycocotools. Their numbers
            are the same.
        boundary: also report AP by Boundary IoU, as "boundary".
        truth: what a JSON in COCO's format holds, in place of the dataset's.

    Raises:
        FileNotFoundError: the dataset's JSON is not there.
        ValueError: it is broken or lacks what AP needs, or there are other tasks.
    """

    def __init__(
        self,
        dataset_name: str,
        tasks: Sequence[str] | None = None,
        distributed: bool = True,
        output_dir: str | None = None,
        *,
        max_dets_per_image: int | None = None,
        use_fast_impl: bool = True,
        boundary: bool = False,
        truth: dict | None = None,
    ) -> None:
        unknown = set(tasks or ()) - SHAPES.keys()
        if unknown:
            raise ValueError(f"AP has no task {min(unknown)!r}; choose from {', '.join(SHAPES)}")
        self._dataset = MetadataCatalog.get(dataset_name)
        self._source = self._dataset.get("json_file") or dataset_name
        if truth is None:
            truth = _truth_of(dataset_name, self._dataset.get("json_file"))
        check_truth(truth, self._source)
        self._truth = truth
        self._tasks = tasks
        self._distributed = distributed
        self._output_dir = output_dir
        self._max_detections = max_dets_per_image or MAX_DETECTIONS
        self._judge = find_judge(use_fast_impl)
        self._with_boundary = boundary
        self.reset()

    def reset(self) -> None:
        """Forget, and look up the class ids, which the dataset's loader may have set meanwhile."""
        self._kept: dict[int | str, tuple[Detections, Any]] = {}
        self._images = {image["id"]: image for image in self._truth["images"]}
        self._category_ids = sorted(category["id"] for category in self._truth["categories"])
        class_of = self._dataset.get("thing_dataset_id_to_contiguous_id")
        if class_of is None:
            class_of = {category: category for category in self._category_ids}
        self._position = {class_of[c]: i for i, c in enumerate(self._category_ids) if c in class_of}

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Keep what was found in each image, as run lengths.

        Args:
            inputs: "image_id" of each image.
            outputs: "instances" of each: pred_boxes (N,4), pred_classes (N,), scores (N,), and
                pred_masks (N,H,W) if there are masks.

        Raises:
            ValueError: masks have another size than the ground truth.
        """
        for sample, output in zip(inputs, outputs):
            instances = output["instances"]
            truth = self._look_up(sample, tuple(instances.image_size))
            self._kept[sample["image_id"]] = self._things(instances), truth

    def _look_up(self, sample: dict, size: tuple[int, int]) -> Any:
        """What of an image's ground truth is to be kept with its detections."""
        image = self._images.get(sample["image_id"], {})
        true_size = image.get("height", size[0]), image.get("width", size[1])
        if true_size != size:
            raise ValueError(
                f"{sample.get('file_name', sample['image_id'])}: the prediction has {size[0]}x"
                f"{size[1]} pixels, but {self._source} says {true_size[0]}x{true_size[1]}; correct "
                "the height and width there"
            )

    def _things(self, instances: Instances) -> Detections:
        classes = instances.pred_classes.tolist()
        positions = np.array([self._position.get(c, -1) for c in classes], np.int64)
        kept = np.flatnonzero(positions >= 0)
        boxes = BoxMode.convert(
            instances.pred_boxes.tensor.cpu(), BoxMode.XYXY_ABS, BoxMode.XYWH_ABS
        )
        counts = None
        if instances.has("pred_masks"):
            masks = encode(instances.pred_masks)  # of all: to pick some would copy them
            counts = [masks[i]["counts"] for i in kept]
        return Detections(
            size=tuple(instances.image_size),
            categories=positions[kept],
            scores=instances.scores.cpu().double().numpy()[kept],
            boxes=boxes.numpy()[kept],
            counts=counts,
        )

    def evaluate(self, img_ids: Iterable[int | str] | None = None) -> OrderedDict | None:
        """On the main process {task: metrics} of "bbox", "segm" and "boundary", None elsewhere.

        It is {} without predictions, and where the ground truth has no annotations (test sets).

        Args:
            img_ids: only these images.
        """
        ranks = [self._kept]
        if self._distributed:
            ranks = comm.gather(self._kept)
            if not comm.is_main_process():
                return None
        kept = {image_id: each for rank in ranks for image_id, each in rank.items()}
        if not kept:
            logger.warning("Nothing was predicted, so there is nothing to evaluate")
            return OrderedDict()
        results = [
            result
            for image_id, (detections, _) in kept.items()
            for result in detections.results(image_id, self._category_ids)
        ]
        if self._output_dir:
            self._write(results)
        truth = self._truth_for([part for _, part in kept.values()])
        if "annotations" not in truth:
            logger.info("The ground truth has no annotations, so there is no AP")
            return OrderedDict()
        return self._measure(truth, results, img_ids)

    def _truth_for(self, parts: list) -> dict:
        """Ground truth in COCO's format, from what `_look_up` gave of each image."""
        return self._truth

    def _measure(self, truth: dict, results: list[dict], img_ids: Iterable | None) -> OrderedDict:
        has_masks = any("segmentation" in result for result in results)
        tasks = sorted(self._tasks or (SHAPES if has_masks else ["bbox"]))
        jobs = [(task, task, self._judge) for task in tasks]
        if self._with_boundary:
            jobs.append(("boundary", "segm", BOUNDARY_JUDGE))
        found = OrderedDict()
        for name, task, judge in jobs:
            found[name] = average_precision(
                truth,
                results,
                task,
                judge=judge,
                img_ids=img_ids,
                max_detections=self._max_detections,
                of_each=name != "boundary",
            )
            means = {k: v for k, v in found[name].items() if not k.startswith("AP-")}
            logger.info("%s in percent:\n%s", name, create_small_table(means))
        return found

    def _write(self, results: list[dict]) -> None:
        PathManager.mkdirs(self._output_dir)
        path = os.path.join(self._output_dir, "coco_instances_results.json")
        logger.info("Writing %d instances to %s", len(results), path)
        with PathManager.open(path, "w") as file:
            file.write(json.dumps(results, default=bytes.decode))


def _truth_of(dataset_name: str, json_file: str | None) -> dict:
    if json_file is None:
        return _truth_of_dicts(dataset_name)
    advice = f"{dataset_name} has its annotations there: put it there or prepare the dataset"
    return read_json(PathManager.get_local_path(json_file), advice)


def _truth_of_dicts(dataset_name: str) -> dict:
    """A dataset in COCO's format; boxes, areas and crowds as its dicts have them."""
    samples = [
        {**s, "annotations": [_compressed(a, s["file_name"]) for a in s["annotations"]]}
        for s in DatasetCatalog.get(dataset_name)
    ]
    with stand_in(dataset_name, samples) as name:
        return convert_to_coco_dict(name)


def _compressed(annotation: dict, file_name: str) -> dict:
    """Run lengths as pycocotools wants them for an area."""
    mask = annotation["segmentation"]
    if isinstance(mask, dict) and isinstance(mask["counts"], list):
        height, width = mask["size"]
        # Of longer ones pycocotools would write beyond the memory that it has for them.
        if min(mask["counts"], default=0) < 0 or sum(mask["counts"]) != height * width:
            raise ValueError(
                f"{file_name}: run lengths of an object cover {sum(mask['counts'])} pixels, not "
                f"its size of {height}x{width}; correct or remove this object"
            )
        mask = pycocotools.mask.frPyObjects(mask, height, width)
    return {**annotation, "segmentation": mask}
