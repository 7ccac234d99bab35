"""Average precision of the thing classes, of instance and of panoptic models."""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.data import MetadataCatalog
from detectron2.data.catalog import Metadata
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Instances
from detectron2.utils.file_io import PathManager


class InstanceSegEvaluator(COCOEvaluator):
    """COCOEvaluator for any numbering of classes, with the official Mask2Former's name.

    The categories are those of the ground truth. Of a panoptic model, whose classes are things and
    stuff, only those count that the metadata's `thing_dataset_id_to_contiguous_id` has. An image
    that was predicted twice, by two processes or one, counts once.

    Args:
        dataset_name, options: see COCOEvaluator.

    Raises:
        FileNotFoundError: the dataset's JSON is not there.
        ValueError: it has no categories.
    """

    def __init__(self, dataset_name: str, *args: Any, **options: Any) -> None:
        self._dataset = MetadataCatalog.get(dataset_name)
        json_file = self._dataset.get("json_file")
        if json_file is not None and not PathManager.isfile(json_file):
            raise FileNotFoundError(
                f"{json_file}: no such file, but {dataset_name} has its annotations there; "
                "put it there or prepare the dataset"
            )
        super().__init__(dataset_name, *args, **options)
        if not self._coco_api.dataset.get("categories"):
            raise ValueError(
                f"{self._dataset.json_file}: no categories in it; list the id and name of each"
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
        once = {prediction["image_id"]: prediction for prediction in predictions}
        super()._eval_predictions(list(once.values()), img_ids)
