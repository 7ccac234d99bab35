"""Cityscapes results as cityscapesscripts computes them, from prediction files.

Its evaluation scripts read the environment as they are imported, so that is when they are needed.
"""

from __future__ import annotations

import copy
import glob
import logging
import os
import tempfile
import types
import warnings
from collections import OrderedDict

import numpy as np
from PIL import Image

from detectron2.data import MetadataCatalog
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager

from .evaluator import DatasetEvaluator


class CityscapesEvaluator(DatasetEvaluator):
    """A temporary directory that the processes of one machine write their predictions to.

    Args:
        dataset_name: a registered dataset with the metadata `gt_dir`.
    """

    def __init__(self, dataset_name: str):
        self._metadata = MetadataCatalog.get(dataset_name)
        self._logger = logging.getLogger(__name__)

    def reset(self) -> None:
        """
        Raises:
            RuntimeError: the processes run on several machines, which share no directory.
        """
        if comm.get_local_size() != comm.get_world_size():
            raise RuntimeError(
                f"Cityscapes results are written to one machine's temporary directory, but of "
                f"{comm.get_world_size()} processes only {comm.get_local_size()} run here; "
                "evaluate with --num-machines 1"
            )
        self._working_dir = tempfile.TemporaryDirectory(prefix="cityscapes_eval_")
        self._temp_dir = comm.all_gather(self._working_dir.name)[0]
        if self._temp_dir != self._working_dir.name:
            self._working_dir.cleanup()
        self._logger.info(f"Predictions go to {self._temp_dir}")

    def _pairs(self, gt_suffix: str, pred_suffix: str) -> tuple[list[str], list[str]]:
        """The predictions' files and those of the ground truth, one for each of its images."""
        self._logger.info(f"Scoring the predictions in {self._temp_dir}")
        gt_dir = PathManager.get_local_path(self._metadata.gt_dir)
        gt_files = sorted(glob.glob(os.path.join(gt_dir, "*", "*" + gt_suffix)))
        if not gt_files:
            raise FileNotFoundError(
                f"no ground truth *{gt_suffix} in the city folders of {gt_dir}; "
                "check DETECTRON2_DATASETS"
            )
        return [self._prediction_of(file, gt_suffix, pred_suffix) for file in gt_files], gt_files

    def _prediction_of(self, gt_file: str, gt_suffix: str, pred_suffix: str) -> str:
        frame = os.path.basename(gt_file).removesuffix(gt_suffix)  # city_sequence_frame
        found = glob.glob(os.path.join(glob.escape(self._temp_dir), f"{frame}_*{pred_suffix}"))
        if len(found) != 1:
            raise FileNotFoundError(
                f"{len(found)} predictions for the ground truth {gt_file}; evaluate a dataset that "
                "has each of its images once"
            )
        return found[0]


class CityscapesInstanceEvaluator(CityscapesEvaluator):
    """AP, averaged over IoUs of 0.5 to 0.95, and AP50, of the classes that have instances.

    Args:
        dataset_name: a registered dataset with the metadata `gt_dir` and `thing_classes`.
    """

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Write the "instances" of a batch: pred_masks (N,H,W), pred_classes (N,), scores (N,)."""
        from cityscapesscripts.helpers.labels import name2label

        for image, output in zip(inputs, outputs):
            stem = os.path.splitext(os.path.basename(image["file_name"]))[0]
            lines = []
            if "instances" in output:
                instances = output["instances"].to("cpu")
                classes = [self._metadata.thing_classes[i] for i in instances.pred_classes]
                for number, name in enumerate(classes):
                    mask_file = f"{stem}_{number}.png"
                    mask = instances.pred_masks[number].numpy().astype(np.uint8)
                    Image.fromarray(255 * mask).save(os.path.join(self._temp_dir, mask_file))
                    score = instances.scores[number].item()
                    lines.append(f"{mask_file} {name2label[name].id} {score}\n")
            # A file for each image, as the benchmark wants it.
            with open(os.path.join(self._temp_dir, f"{stem}_pred.txt"), "w") as f:
                f.writelines(lines)

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """{"segm": {"AP", "AP50"}} in percent in the main process, else None.

        Raises:
            FileNotFoundError: no ground truth below `gt_dir`, or no prediction for one of its
                images.
        """
        comm.synchronize()
        if comm.get_rank() > 0:
            return None
        pred_files, gt_files = self._pairs("_gtFine_instanceIds.png", "pred.txt")
        averages = _evaluate_instances(pred_files, gt_files, os.path.abspath(self._temp_dir))
        self._working_dir.cleanup()
        metrics = {"AP": 100 * averages["allAp"], "AP50": 100 * averages["allAp50%"]}
        return OrderedDict(segm=metrics)


class CityscapesSemSegEvaluator(CityscapesEvaluator):
    """IoU and instance-weighted iIoU over classes and over categories (`_sup`), in percent."""

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Write the label ids of a batch; `outputs[i]["sem_seg"]` are class scores (19,H,W).

        Raises:
            ValueError: there are more or fewer channels than evaluated classes.
        """
        from cityscapesscripts.helpers.labels import labels

        to_id = {label.trainId: label.id for label in labels if not label.ignoreInEval}
        lookup = np.array([to_id[train_id] for train_id in range(len(to_id))], dtype=np.uint8)
        for image, output in zip(inputs, outputs):
            scores = output["sem_seg"]
            if len(scores) != len(lookup):
                raise ValueError(
                    f"the model predicts {len(scores)} classes, but Cityscapes evaluates "
                    f"{len(lookup)}; set MODEL.SEM_SEG_HEAD.NUM_CLASSES to {len(lookup)}"
                )
            name = os.path.splitext(os.path.basename(image["file_name"]))[0]
            label_ids = lookup[scores.argmax(dim=0).cpu().numpy()]
            Image.fromarray(label_ids).save(os.path.join(self._temp_dir, f"{name}_pred.png"))

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """{"sem_seg": {"IoU", "iIoU", "IoU_sup", "iIoU_sup"}} in the main process, else None.

        Raises:
            FileNotFoundError: no ground truth below `gt_dir`, or no prediction for one of its
                images.
        """
        comm.synchronize()
        if comm.get_rank() > 0:
            return None
        pred_files, gt_files = self._pairs("_gtFine_labelIds.png", "pred.png")
        scores = _evaluate_pixels(pred_files, gt_files)
        self._working_dir.cleanup()
        for name in ("class", "category"):
            self._logger.info(_table(name, scores[f"{name}Scores"], scores[f"{name}InstScores"]))
        averages = {
            "IoU": "averageScoreClasses",
            "iIoU": "averageScoreInstClasses",
            "IoU_sup": "averageScoreCategories",
            "iIoU_sup": "averageScoreInstCategories",
        }
        metrics = {name: 100.0 * scores[average] for name, average in averages.items()}
        return OrderedDict(sem_seg=metrics)


def _evaluate_pixels(pred_files: list[str], gt_files: list[str]) -> dict:
    from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as script

    _replace_removed_functions(script)
    args = copy.copy(script.args)
    args.JSONOutput, args.colorized, args.quiet = False, False, True
    return script.evaluateImgLists(pred_files, gt_files, args)


def _evaluate_instances(pred_files: list[str], gt_files: list[str], folder: str) -> dict:
    from cityscapesscripts.evaluation import evalInstanceLevelSemanticLabeling as script

    _replace_removed_functions(script)
    args = copy.copy(script.args)
    args.predictionPath, args.quiet = folder, True
    script.setInstanceLabels(args)
    # Its evaluateImgLists would leave a file in the current directory.
    instances = script.instances2dict(gt_files)
    matches = script.matchGtWithPreds(pred_files, gt_files, instances, args)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice")  # no class has instances
        return script.computeAverages(script.evaluateMatches(matches, args), args)


def _replace_removed_functions(script: types.ModuleType) -> None:
    if not hasattr(np, "in1d"):  # the scripts call what NumPy 2.4 has removed
        script.np = types.SimpleNamespace(**vars(np), in1d=np.isin)


def _table(kind: str, scores: dict[str, float], instance_scores: dict[str, float]) -> str:
    """IoU and iIoU in percent, a line for each class or category that was there to evaluate."""
    lines = [f"{kind:<16}{'IoU':>8}{'iIoU':>8}"]
    for name, score in scores.items():
        if not np.isnan(score):
            lines.append(f"{name:<16}{100 * score:>8.2f}{100 * instance_scores[name]:>8.2f}")
    return "\n".join(lines)
