"""Panoptic Quality, by panopticapi."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import tempfile
from collections import OrderedDict

import numpy as np
from PIL import Image
from tabulate import tabulate

from detectron2.data import MetadataCatalog
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager

from .evaluator import DatasetEvaluator

logger = logging.getLogger(__name__)

_GROUPS = {"": "All", "_th": "Things", "_st": "Stuff"}  # suffix of the metrics -> panopticapi's


class COCOPanopticEvaluator(DatasetEvaluator):
    """PQ, SQ and RQ of all categories, of things (_th) and of stuff (_st), in percent.

    Args:
        dataset_name: a registered dataset whose metadata has `panoptic_json` and `panoptic_root`,
            the ground truth, and {thing,stuff}_dataset_id_to_contiguous_id, by which predicted
            classes become category ids.
        output_dir: gets predictions.json.
    """

    def __init__(self, dataset_name: str, output_dir: str | None = None):
        self._metadata = MetadataCatalog.get(dataset_name)
        self._thing_contiguous_id_to_dataset_id, self._stuff_contiguous_id_to_dataset_id = (
            {contiguous: dataset for dataset, contiguous in to_contiguous.items()}
            for to_contiguous in (
                self._metadata.thing_dataset_id_to_contiguous_id,
                self._metadata.stuff_dataset_id_to_contiguous_id,
            )
        )
        self._output_dir = output_dir
        if output_dir is not None:
            PathManager.mkdirs(output_dir)

    def reset(self) -> None:
        self._predictions: list[dict] = []

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Keep a batch as PNGs.

        Args:
            inputs: "file_name" and "image_id" of each image.
            outputs: "panoptic_seg" of each: a tensor of segment ids (H,W), 0 for none, and a list
                of {"id", "category_id", "isthing"}, of which the category is the dataset's own if
                there is no "isthing". Instead of the list None: then the ids are category_id *
                metadata.label_divisor + number, and -1 for none.
        """
        from panopticapi.utils import id2rgb

        for image, output in zip(inputs, outputs):
            segment_ids, segments = output["panoptic_seg"]
            ids = segment_ids.cpu().numpy()
            if segments is None:
                ids, segments = ids + 1, self._segments_of(np.unique(ids[ids != -1]).tolist())
            png = io.BytesIO()
            Image.fromarray(id2rgb(ids)).save(png, format="PNG")
            stem = os.path.splitext(os.path.basename(image["file_name"]))[0]
            self._predictions.append(
                {
                    "image_id": image["image_id"],
                    "file_name": f"{stem}.png",
                    "png_string": png.getvalue(),
                    "segments_info": [self._convert_category_id(s) for s in segments],
                }
            )

    def _segments_of(self, labels: list[int]) -> list[dict]:
        things = self._metadata.thing_dataset_id_to_contiguous_id.values()
        categories = [label // self._metadata.label_divisor for label in labels]
        return [
            {"id": label + 1, "category_id": category, "isthing": category in things}
            for label, category in zip(labels, categories)
        ]

    def _convert_category_id(self, segment_info: dict) -> dict:
        segment = dict(segment_info)
        is_thing = segment.pop("isthing", None)
        if is_thing is not None:
            to_dataset = (
                self._thing_contiguous_id_to_dataset_id
                if is_thing
                else self._stuff_contiguous_id_to_dataset_id
            )
            segment["category_id"] = to_dataset[segment["category_id"]]
        return segment

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """{"panoptic_seg": metrics} in the main process, None in the others."""
        from panopticapi.evaluation import pq_compute

        comm.synchronize()
        ranks = comm.gather(self._predictions)
        if not comm.is_main_process():
            return None
        predictions = [dict(prediction) for rank in ranks for prediction in rank]
        truth = PathManager.get_local_path(self._metadata.panoptic_json)
        with tempfile.TemporaryDirectory(prefix="panoptic_eval") as folder:
            for prediction in predictions:
                with open(os.path.join(folder, prediction["file_name"]), "wb") as f:
                    f.write(prediction.pop("png_string"))
            with open(truth, encoding="utf-8") as f:
                content = {**json.load(f), "annotations": predictions}
            path = os.path.join(self._output_dir or folder, "predictions.json")
            with PathManager.open(path, "w") as f:
                json.dump(content, f)
            with contextlib.redirect_stdout(io.StringIO()):
                quality = pq_compute(
                    truth,
                    PathManager.get_local_path(path),
                    gt_folder=PathManager.get_local_path(self._metadata.panoptic_root),
                    pred_folder=folder,
                )
        metrics = {
            f"{name}{suffix}": 100 * quality[group][name.lower()]
            for suffix, group in _GROUPS.items()
            for name in ("PQ", "SQ", "RQ")
        }
        logger.info("Panoptic Quality in percent:\n%s", _table(quality))
        return OrderedDict(panoptic_seg=metrics)


def _table(quality: dict[str, dict]) -> str:
    rows = [
        [group, *(100 * quality[group][key] for key in ("pq", "sq", "rq")), quality[group]["n"]]
        for group in _GROUPS.values()
    ]
    headers = ["", "PQ", "SQ", "RQ", "categories"]
    return tabulate(rows, headers=headers, tablefmt="pipe", floatfmt=".3f")
