"""Cityscapes' own scores for instance segmentation, by cityscapesscripts.

detectron2's evaluator of this name writes every mask to a file that one process reads again, works
on one machine only, and cannot be imported in its newest version outside of its authors' company.
This one compares in each process, in memory; the scores are cityscapesscripts' functions of what
was found. (Its function that compares, `assignGt2Preds`, needs a numpy below 2.4.)
"""

import copy
import logging
import warnings
from collections import OrderedDict

import numpy as np
from cityscapesscripts.evaluation import evalInstanceLevelSemanticLabeling as scores
from cityscapesscripts.helpers.labels import id2label, labels, name2label
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Instances
from detectron2.utils import comm
from detectron2.utils.logger import create_small_table

from mask2former.evaluation.cityscapes import LABEL_DIVISOR, read_ground_truth

logger = logging.getLogger(__name__)

THINGS = [label.name for label in labels if label.hasInstances and not label.ignoreInEval]
VOID_IDS = [label.id for label in labels if label.ignoreInEval]

# Of one image "groundTruth" and "prediction": class name -> instances, as `evaluateMatches` wants
# them: each knows how many pixels it shares with which of the others.
Matches = dict[str, dict[str, list[dict]]]


class CityscapesInstanceEvaluator(DatasetEvaluator):
    """AP, averaged over IoUs of 0.5 to 0.95, and AP50 (Cityscapes paper, sec. 4.3), in percent.

    Ground truth is *_gtFine_instanceIds.png under the metadata's `gt_dir`. Only the images that
    were processed count, each of them once.

    Args:
        dataset_name: its metadata's `thing_classes` are the names of the predicted classes; of
            these only Cityscapes' eight with instances count.

    Raises:
        ValueError: a class is none of Cityscapes'.
    """

    def __init__(self, dataset_name: str) -> None:
        metadata = MetadataCatalog.get(dataset_name)
        self.gt_dir = metadata.gt_dir
        unknown = [name for name in metadata.thing_classes if name not in name2label]
        if unknown:
            raise ValueError(
                f"{dataset_name}: thing_classes has {unknown[0]!r}, which is no class of "
                "Cityscapes; correct it or set another evaluator_type"
            )
        self.class_names = metadata.thing_classes
        self.reset()

    def reset(self) -> None:
        self.matches: dict[str, Matches] = {}  # by the image's file

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Compare.

        Args:
            inputs: "file_name" of each image.
            outputs: "instances" of each: pred_masks (N,H,W), pred_classes (N,), scores (N,).

        Raises:
            FileNotFoundError: an image has no ground truth.
            ValueError: its ground truth has another size.
        """
        for sample, output in zip(inputs, outputs):
            name = sample["file_name"]
            instance_ids = read_ground_truth(self.gt_dir, name, "instanceIds")
            self.matches[name] = self._match(output["instances"].to("cpu"), instance_ids)

    def _match(self, instances: Instances, instance_ids: np.ndarray) -> Matches:
        names = [self.class_names[i] for i in instances.pred_classes.tolist()]
        masks = instances.pred_masks.numpy().astype(bool)
        return match_instances(names, instances.scores.tolist(), masks, instance_ids)

    def evaluate(self) -> OrderedDict | None:
        """
        Returns:
            on the main process {"segm": {"AP", "AP50"}}, and "AP-person", "AP50-person" and so on
            for each class, NaN for one without instances.
        """
        ranks = comm.gather(self.matches)
        if not comm.is_main_process():
            return None
        merged = {name: match for rank in ranks for name, match in rank.items()}
        results = average_precision([merged[name] for name in sorted(merged)])
        logger.info("Cityscapes AP in percent:\n%s", create_small_table(results))
        return OrderedDict(segm=results)


def match_instances(
    names: list[str], confidences: list[float], masks: np.ndarray, instance_ids: np.ndarray
) -> Matches:
    """Which predicted and true instances of an image share pixels.

    Args:
        names, confidences, masks: of N predictions; masks (N,H,W) bool.
        instance_ids: (H,W), of *_gtFine_instanceIds.png.

    Raises:
        ValueError: the sizes differ.
    """
    ids, which, sizes = np.unique(instance_ids, return_inverse=True, return_counts=True)  # (I,)
    which = which.reshape(instance_ids.shape)  # (H,W), an index into ids
    label_ids = [i if i < LABEL_DIVISOR else i // LABEL_DIVISOR for i in ids.tolist()]
    if masks.shape[1:] != instance_ids.shape or not id2label.keys() >= set(label_ids):
        raise ValueError(
            f"ground truth of shape {instance_ids.shape} with ids up to {ids[-1]} for masks of "
            f"shape {masks.shape[1:]}; instance ids are label ids or {LABEL_DIVISOR} times as "
            "large, in the image's size"
        )
    classes = [id2label[i].name for i in label_ids]
    # The distances are those that cityscapesscripts sets where none are known.
    instances = [
        {"instID": i, "pixelCount": size, "medDist": -1, "distConf": 0.0}
        for i, size in zip(ids.tolist(), sizes.tolist())
    ]
    truth = {name: [] for name in THINGS}
    predicted = {name: [] for name in THINGS}
    for name, instance in zip(classes, instances):
        if name in truth:
            truth[name].append(instance | {"matchedPred": []})
    is_void = np.isin(ids, VOID_IDS)
    for name, confidence, mask in zip(names, confidences, masks):
        if name not in predicted or not mask.any():
            continue
        box = bounding_box(mask)  # most masks are small
        shared = np.bincount(which[box][mask[box]], minlength=len(ids))  # (I,) pixels
        prediction = {"pixelCount": int(shared.sum()), "confidence": confidence}
        of_class = [i for i, other in enumerate(classes) if other == name]
        matched = []
        for entry, i in zip(truth[name], of_class):
            pixels = {"intersection": int(shared[i])}
            if shared[i]:
                entry["matchedPred"].append(prediction | pixels)
                matched.append(instances[i] | pixels)
        void = {"voidIntersection": int(shared[is_void].sum()), "matchedGt": matched}
        predicted[name].append(prediction | void)
    return {"groundTruth": truth, "prediction": predicted}


def bounding_box(mask: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of the pixels of a mask (H,W) that has some."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def average_precision(matches: list[Matches]) -> dict[str, float]:
    """In percent AP and AP50, and AP-NAME and AP50-NAME of each class; NaN without instances."""
    args = copy.copy(scores.args)
    args.instLabels = THINGS
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice")  # no class has instances
        table = scores.evaluateMatches(dict(enumerate(matches)), args)
        averages = scores.computeAverages(table, args)
    results = {"AP": averages["allAp"], "AP50": averages["allAp50%"]}
    for metric, key in (("AP", "ap"), ("AP50", "ap50%")):
        results |= {f"{metric}-{name}": averages["classes"][name][key] for name in THINGS}
    return {name: 100 * float(value) for name, value in results.items()}
