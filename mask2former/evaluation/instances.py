"""Average precision of the thing classes, of instance and of panoptic models."""

import contextlib
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import pycocotools.mask
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.catalog import Metadata
from detectron2.data.datasets.coco import convert_to_coco_dict
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Instances
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import create_small_table

from mask2former.evaluation.boundary import boundary_average_precision
from mask2former.evaluation.stand_in import stand_in

logger = logging.getLogger(__name__)


class InstanceSegEvaluator(COCOEvaluator):
    """COCOEvaluator for any numbering of classes, with the official Mask2Former's name.

    The categories are those of the ground truth. Of a panoptic model, whose classes are things and
    stuff, only those count that the metadata's `thing_dataset_id_to_contiguous_id` has. An image
    that was predicted twice, by two processes or one, counts once.

    Where the metadata name no JSON, the annotations in the dataset's dicts are the ground truth;
    COCOEvaluator would keep them in a file, and take this for those of a dataset that has changed.

    Args:
        dataset_name, options: see COCOEvaluator.
        boundary: also report AP by Boundary IoU, as "boundary".
        truth: what a JSON in COCO's format holds, in place of the dataset's.

    Raises:
        FileNotFoundError: the dataset's JSON is not there.
        ValueError: it has no categories.
    """

    def __init__(
        self,
        dataset_name: str,
        *args: Any,
        boundary: bool = False,
        truth: dict | None = None,
        **options: Any,
    ) -> None:
        self._dataset = MetadataCatalog.get(dataset_name)
        json_file = self._dataset.get("json_file")
        if truth is None and json_file is None:
            truth = _truth_of_dicts(dataset_name)
        if truth is None and not PathManager.isfile(json_file):
            raise FileNotFoundError(
                f"{json_file}: no such file, but {dataset_name} has its annotations there; "
                "put it there or prepare the dataset"
            )
        with _with_json(dataset_name, truth) as name:
            super().__init__(name, *args, **options)
        self._with_boundary = boundary
        if not self._coco_api.dataset.get("categories"):
            raise ValueError(
                f"{json_file or dataset_name}: no categories in it; list the id and name of each"
            )

    def reset(self) -> None:
        """Forget, and look up the class ids, which the dataset's loader may have set meanwhile."""
        super().reset()
        categories = {c["id"]: c["name"] for c in self._coco_api.dataset["categories"]}
        ids = sorted(categories)  # as pycocotools has them
        to_contiguous = self._dataset.get("thing_dataset_id_to_contiguous_id")
        if to_contiguous is None:
            to_contiguous = {category: category for category in ids}
        self._position = {to_contiguous[c]: i for i, c in enumerate(ids) if c in to_contiguous}
        # COCOEvaluator wants classes to be 0, 1, .., in the order of the categories.
        self._metadata = Metadata(
            name=self._dataset.name,
            thing_classes=[categories[c] for c in ids],
            thing_dataset_id_to_contiguous_id={c: i for i, c in enumerate(ids)},
        )

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Keep the "instances" of each image, with pred_boxes, pred_masks, pred_classes, scores."""
        super().process(inputs, [{"instances": self._things(o["instances"])} for o in outputs])

    def _things(self, instances: Instances) -> Instances:
        positions = [self._position.get(c, -1) for c in instances.pred_classes.tolist()]
        positions = torch.tensor(positions, dtype=torch.int64, device=instances.pred_classes.device)
        things = instances[positions >= 0]
        things.pred_classes = positions[positions >= 0]
        return things

    def _eval_predictions(self, predictions: list[dict], img_ids: Sequence | None = None) -> None:
        predictions = list({p["image_id"]: p for p in predictions}.values())
        # First, because COCOEvaluator may change what it is given.
        boundary = self._boundary_metrics(predictions, img_ids) if self._with_boundary else {}
        super()._eval_predictions(predictions, img_ids)
        self._results.update(boundary)

    def _boundary_metrics(self, predictions: list[dict], img_ids: Sequence | None) -> dict:
        if not self._do_evaluation:
            return {}
        category = {i: c for c, i in self._metadata.thing_dataset_id_to_contiguous_id.items()}
        results = [
            {**instance, "category_id": category[instance["category_id"]]}
            for prediction in predictions
            for instance in prediction["instances"]
        ]
        metrics = boundary_average_precision(self._coco_api, results, img_ids)
        logger.info("boundary in percent:\n%s", create_small_table(metrics))
        return {"boundary": metrics}


def _truth_of_dicts(dataset_name: str) -> dict:
    """A dataset in COCO's format; boxes, areas and crowds as its dicts have them."""
    samples = [
        {**sample, "annotations": [_compressed(a) for a in sample["annotations"]]}
        for sample in DatasetCatalog.get(dataset_name)
    ]
    with stand_in(dataset_name, samples) as name:
        return convert_to_coco_dict(name)


def _compressed(annotation: dict) -> dict:
    """Run lengths as pycocotools wants them for an area."""
    mask = annotation["segmentation"]
    if isinstance(mask, dict) and isinstance(mask["counts"], list):
        mask = pycocotools.mask.frPyObjects(mask, *mask["size"])
    return {**annotation, "segmentation": mask}


@contextlib.contextmanager
def _with_json(dataset_name: str, truth: dict | None) -> Iterator[str]:
    """Yields the name of a dataset whose json_file holds `truth`; None: that of the dataset."""
    if truth is None:
        yield dataset_name
        return
    with tempfile.TemporaryDirectory(prefix="coco_truth") as folder:
        path = os.path.join(folder, "truth.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(truth, file)
        with stand_in(dataset_name, json_file=path) as name:
            yield name
