"""The evaluators whose numbers ours give: the tools that papers are measured with, as they are.

detectron2's are made to fit any dataset. Its evaluators for Cityscapes want each image of a split,
and cannot be imported in its newest version outside of its authors' company; so here
cityscapesscripts' own scripts read what was predicted from files.
"""

import contextlib
import copy
import io
import logging
import os
import tempfile
import types
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cityscapesscripts.evaluation import evalInstanceLevelSemanticLabeling as instance_script
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as pixel_script
from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOPanopticEvaluator, DatasetEvaluator, SemSegEvaluator
from detectron2.utils import comm
from detectron2.utils.logger import create_small_table
from torch import Tensor

from mask2former.evaluation.cityscapes import CLASS_NAMES, ground_truth_file
from mask2former.evaluation.cityscapes_instances import THINGS, cityscapes_classes
from mask2former.evaluation.predictions.cityscapes import (
    CityscapesInstances,
    CityscapesLabels,
    frame_of,
)
from mask2former.files import open_picture

logger = logging.getLogger(__name__)


def sem_seg_evaluator(dataset_name: str, output_dir: str, **options: Any) -> SemSegEvaluator:
    """detectron2's, which writes its predictions if each class has an id of the dataset's."""
    metadata = MetadataCatalog.get(dataset_name)
    ids = metadata.get("stuff_dataset_id_to_contiguous_id")
    if ids is None or set(ids.values()) >= set(range(len(metadata.stuff_classes))):
        return LabelEvaluator(dataset_name, output_dir=output_dir, **options)
    return ScoresOnlyEvaluator(dataset_name, **options)


class LabelEvaluator(SemSegEvaluator):
    """SemSegEvaluator that takes labels too, as saved predictions have them."""

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Count the "sem_seg" of each image: scores (K,H,W), or labels (H,W)."""
        values = [output["sem_seg"] for output in outputs]
        scores = [value if value.dim() == 3 else _LabelsAsScores(value) for value in values]
        super().process(inputs, [{"sem_seg": value} for value in scores])


class _LabelsAsScores:
    """Of scores it is the argmax alone that SemSegEvaluator asks for."""

    def __init__(self, labels: Tensor) -> None:
        self.labels = labels

    def argmax(self, dim: int) -> Tensor:
        return self.labels


class ScoresOnlyEvaluator(LabelEvaluator):
    """LabelEvaluator that writes no predictions, and so needs no dataset id of every class."""

    def encode_json_sem_seg(self, sem_seg: np.ndarray, input_file_name: str) -> list[dict]:
        return []


class PixelEvaluator(LabelEvaluator):
    """LabelEvaluator beside an evaluator whose results are "sem_seg": its own are "sem_seg_pixel".

    The prefix is also that of its metrics in logs: sem_seg_pixel/mIoU, ...
    """

    def evaluate(self) -> dict | None:
        results = super().evaluate()
        return results and {"sem_seg_pixel": results["sem_seg"]}


class PanopticEvaluator(COCOPanopticEvaluator):
    """COCOPanopticEvaluator for images that share a name, as a/1.jpg and b/1.jpg do.

    That one writes the prediction of an image to a file of the image's own name; here it has the
    name of the image's id. And a folder for the results is made when there are some.

    Args:
        dataset_name, output_dir: see COCOPanopticEvaluator.
    """

    def __init__(self, dataset_name: str, output_dir: str | None = None) -> None:
        super().__init__(dataset_name)
        self._output_dir = output_dir

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Keep the "panoptic_seg" of each image, by its "image_id"."""
        names = [str(sample["image_id"]).replace(os.sep, "_") for sample in inputs]
        super().process([s | {"file_name": f"{n}.png"} for s, n in zip(inputs, names)], outputs)

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        if self._output_dir is not None:
            os.makedirs(self._output_dir, exist_ok=True)
        return super().evaluate()


class _CityscapesEvaluator(DatasetEvaluator):
    """Writes what a model returns as Cityscapes' server wants it, for a script to read.

    Only the images that were processed count, each of them once.

    Args:
        dataset_name: its metadata have `gt_dir`.
    """

    form: type[CityscapesLabels] | type[CityscapesInstances]  # of the predictions' files
    kind: str  # of the ground truth's files

    def __init__(self, dataset_name: str) -> None:
        self.gt_dir = MetadataCatalog.get(dataset_name).gt_dir
        self._form = self.form(dataset_name)
        self._folder: tempfile.TemporaryDirectory | None = None  # of the main process

    def reset(self) -> None:
        """
        Raises:
            ValueError: the processes have no temporary folder in common.
        """
        if comm.is_main_process():
            self._folder = tempfile.TemporaryDirectory(prefix="cityscapes_")
        self._path = Path(comm.all_gather(self._folder and self._folder.name)[0])
        if not all(comm.all_gather(self._path.is_dir())):
            raise ValueError(
                f"{self._path}: not there for all processes, and cityscapesscripts reads the "
                "predictions of all; set TEST.EVALUATOR to fast, or evaluate on one machine"
            )
        self._truth: dict[str, str] = {}  # the image's file -> that of its ground truth

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Write.

        Args:
            inputs: "file_name" of each image.
            outputs: "sem_seg" or "instances" of each, as our own evaluators want them.

        Raises:
            FileNotFoundError: an image has no ground truth.
            ValueError: it has another size.
        """
        for sample, output in zip(inputs, outputs):
            name, value = sample["file_name"], output[self._form.output]
            path = ground_truth_file(self.gt_dir, name, self.kind)
            size = tuple(getattr(value, "pred_masks", value).shape[-2:])
            with open_picture(path, f"unpack gtFine completely, {name} needs it") as truth:
                if (truth.height, truth.width) != size:
                    raise ValueError(
                        f"{path}: of height and width {(truth.height, truth.width)}, but the "
                        f"prediction for {name} of {size}; predict at the size of the picture"
                    )
            self._form.write(self._path, sample, value)
            self._truth[name] = path

    def evaluate(self) -> OrderedDict | None:
        """
        Returns:
            on the main process what our own evaluator gives.
        """
        ranks = comm.gather(self._truth)
        if not comm.is_main_process():
            return None
        truth = {name: path for rank in ranks for name, path in rank.items()}
        names = sorted(truth)
        with self._folder:
            self._form.open(self._path, [])
            predictions = [str(self._form.files[frame_of(name)]) for name in names]
            results = self._results(predictions, [truth[name] for name in names])
        for task, metrics in results.items():
            logger.info("%s by cityscapesscripts:\n%s", task, create_small_table(metrics))
        return results

    def _results(self, predictions: list[str], truth: list[str]) -> OrderedDict:
        """
        Args:
            predictions, truth: files, two of each image.
        """
        raise NotImplementedError


class CityscapesSemSegEvaluator(_CityscapesEvaluator):
    """IoU and iIoU over classes and categories, by cityscapesscripts, from files."""

    form = CityscapesLabels
    kind = "labelIds"

    def _results(self, predictions: list[str], truth: list[str]) -> OrderedDict:
        return OrderedDict(sem_seg=pixel_scores(predictions, truth))


class CityscapesInstanceEvaluator(_CityscapesEvaluator):
    """AP and AP50, by cityscapesscripts, from files: one for each predicted mask."""

    form = CityscapesInstances
    kind = "instanceIds"

    def __init__(self, dataset_name: str) -> None:
        cityscapes_classes(dataset_name)  # raises
        super().__init__(dataset_name)

    def _results(self, predictions: list[str], truth: list[str]) -> OrderedDict:
        objects = instance_script.instances2dict(truth)
        return OrderedDict(segm=instance_scores(predictions, truth, objects, self._path))


def pixel_scores(predictions: Sequence[str], truth: Sequence[str]) -> dict[str, float]:
    """What cityscapesscripts makes of PNGs of label ids, by the names that we give it, in percent.

    Args:
        predictions, truth: files, two of each image.
    """
    with _usable(pixel_script) as args:
        args.JSONOutput = False
        found = pixel_script.evaluateImgLists(list(predictions), list(truth), args)
    means = {
        "IoU": "averageScoreClasses",
        "iIoU": "averageScoreInstClasses",
        "IoU_sup": "averageScoreCategories",
        "iIoU_sup": "averageScoreInstCategories",
    }
    metrics = {metric: 100 * found[key] for metric, key in means.items()}
    return metrics | {f"IoU-{name}": 100 * found["classScores"][name] for name in CLASS_NAMES}


def instance_scores(
    predictions: Sequence[str], truth: Sequence[str], objects: dict, folder: str | Path
) -> dict[str, float]:
    """What cityscapesscripts makes of text files and a PNG for each mask, as `pixel_scores`.

    Args:
        objects: what its `instances2dict` gives of the files in `truth`.
        folder: of the predictions.
    """
    with _usable(instance_script) as args:
        args.predictionPath = str(folder)
        instance_script.setInstanceLabels(args)
        # What its evaluateImgLists does, which also leaves files where it is and where it runs.
        matches = instance_script.matchGtWithPreds(list(predictions), list(truth), objects, args)
        try:
            table = instance_script.evaluateMatches(matches, args)
        except IndexError as error:
            raise ValueError(
                "cityscapesscripts fails where none of the predictions of a class counts, as "
                "all of them lie where nothing is evaluated; set TEST.EVALUATOR to fast, which "
                "takes 0 for its AP"
            ) from error
        found = instance_script.computeAverages(table, args)
    metrics = {"AP": found["allAp"], "AP50": found["allAp50%"]}
    for metric, key in (("AP", "ap"), ("AP50", "ap50%")):
        metrics |= {f"{metric}-{name}": found["classes"][name][key] for name in THINGS}
    return {name: 100 * float(value) for name, value in metrics.items()}


@contextlib.contextmanager
def _usable(script: types.ModuleType) -> Iterator[types.SimpleNamespace]:
    """Yields options for a script of cityscapesscripts, which works in this block.

    Raises:
        ValueError: the script has ended the program, with what it said.
    """
    if not hasattr(np, "in1d"):  # NumPy 2.4 has removed what the script calls
        script.np = types.SimpleNamespace(**vars(np), in1d=np.isin)
    args = copy.copy(script.args)
    args.quiet, args.colorized = True, False
    said = io.StringIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(said):
            warnings.filterwarnings("ignore", "Mean of empty slice")  # no class has instances
            yield args
    except SystemExit as error:
        reason = " ".join(said.getvalue().split())
        raise ValueError(f"cityscapesscripts ended with {reason!r}; unpack gtFine again") from error
