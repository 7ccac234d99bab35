"""Cityscapes' own scores for semantic segmentation, by cityscapesscripts.

detectron2's evaluator of this name writes every prediction to a file that one process reads again,
works on one machine only, and cannot be imported in its newest version outside of its authors'
company. This one counts in each process, in memory; the scores are cityscapesscripts' functions of
the counts. (Its function that counts, `evaluatePair`, needs a numpy below 2.4.)
"""

import logging
import os
from collections import OrderedDict

import numpy as np
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as scores
from cityscapesscripts.helpers.labels import category2labels, id2label, trainId2label
from detectron2.data import MetadataCatalog
from detectron2.data.detection_utils import read_image
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.logger import create_small_table

logger = logging.getLogger(__name__)

Counts = dict[str, np.ndarray]  # file -> what was counted in it

IMAGE_SUFFIX = "_leftImg8bit.png"
NUM_LABELS = max(id2label) + 1  # label ids are 0..33, and -1 for number plates, which no file has
LABEL_DIVISOR = 1000  # instance id = label id * LABEL_DIVISOR + number; a group: label id
EVALUATED = [label.id for label in id2label.values() if not label.ignoreInEval]
LABEL_ID = np.array([trainId2label[i].id for i in range(len(EVALUATED))])  # of each train id
_CATEGORY_ID = np.array([id2label[i].categoryId for i in range(NUM_LABELS)])
_AVERAGE_SIZE = np.array(
    [scores.args.avgClassSize.get(id2label[i].name, 0.0) for i in range(NUM_LABELS)]
)


class CityscapesSemSegEvaluator(DatasetEvaluator):
    """IoU and iIoU over classes and categories (Cityscapes paper, sec. 4.2), in percent.

    Ground truth is *_gtFine_labelIds.png and *_gtFine_instanceIds.png under the metadata's
    `gt_dir`. Only the images that were processed count.
    """

    def __init__(self, dataset_name: str) -> None:
        self.gt_dir = MetadataCatalog.get(dataset_name).gt_dir
        self.reset()

    def reset(self) -> None:
        self.confusion: Counts = {}
        self.instances: Counts = {}

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Count.

        Args:
            inputs: "file_name" of each image.
            outputs: "sem_seg" (19,H,W) of each, scores in the order of the train ids.

        Raises:
            FileNotFoundError: an image has no ground truth.
        """
        for sample, output in zip(inputs, outputs):
            name = sample["file_name"]
            train_ids = output["sem_seg"].argmax(0).cpu().numpy()  # (H,W)
            prediction = LABEL_ID[train_ids]
            label_ids, instance_ids = (
                read_ground_truth(self.gt_dir, name, kind) for kind in ("labelIds", "instanceIds")
            )
            self.confusion[name] = confusion_matrix(prediction, label_ids)
            self.instances[name] = instance_hits(prediction, instance_ids)

    def evaluate(self) -> OrderedDict | None:
        """
        Returns:
            on the main process {"sem_seg": {"IoU", "iIoU", "IoU_sup", "iIoU_sup"}}, and "IoU-road"
            and so on for each class, NaN for one without pixels.
        """
        ranks = comm.gather((self.confusion, self.instances))
        if not comm.is_main_process():
            return None
        # In the order of the names, so that rounding does not depend on who counted what.
        confusion, hits = (_sum_by_name([rank[i] for rank in ranks]) for i in range(2))
        results = cityscapes_scores(confusion, hits)
        logger.info("Cityscapes scores in percent:\n%s", create_small_table(results))
        return OrderedDict(sem_seg=results)


def read_ground_truth(gt_dir: str, image_file: str, kind: str) -> np.ndarray:
    """An image's "labelIds" or "instanceIds" from a folder of cities, (H,W).

    Raises:
        FileNotFoundError: there are none.
    """
    folder, name = os.path.split(image_file)
    name = f"{name.removesuffix(IMAGE_SUFFIX)}_gtFine_{kind}.png"
    path = os.path.join(gt_dir, os.path.basename(folder), name)
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"{path}: no such file, and without it {image_file} cannot be evaluated; "
            "unpack gtFine completely"
        )
    return read_image(path)


def confusion_matrix(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Pixels by true and predicted label id.

    Shapes: (H,W), (H,W) -> (34,34) int64

    Raises:
        ValueError: the sizes differ, or `truth` holds what is no label id.
    """
    if prediction.shape != truth.shape or truth.max() >= NUM_LABELS:
        raise ValueError(
            f"ground truth of shape {truth.shape} with values up to {truth.max()} for a prediction "
            f"of shape {prediction.shape}; label ids are 0..{NUM_LABELS - 1} in the image's size"
        )
    pairs = NUM_LABELS * truth.ravel().astype(np.int64) + prediction.ravel()
    counts = np.bincount(pairs, minlength=NUM_LABELS**2)
    return counts.reshape(NUM_LABELS, NUM_LABELS)


def instance_hits(prediction: np.ndarray, instances: np.ndarray) -> np.ndarray:
    """Pixels of the instances of each label that were hit and missed.

    An instance counts as much as one of its class's average size.

    Args:
        prediction: (H,W) label ids.
        instances: (H,W) of *_gtFine_instanceIds.png; groups are no instances.

    Returns:
        (34,4) float64: hits and misses of the class, hits and misses of its category.
    """
    is_instance = instances > LABEL_DIVISOR
    ids, which, sizes = np.unique(
        instances[is_instance], return_inverse=True, return_counts=True
    )  # (I,), (P,), (I,): I instances that have P pixels
    label = ids // LABEL_DIVISOR
    found, wanted = prediction[is_instance], label[which]
    hits = np.bincount(which, found == wanted, len(ids))
    category_hits = np.bincount(which, _CATEGORY_ID[found] == _CATEGORY_ID[wanted], len(ids))
    counts = np.stack([hits, sizes - hits, category_hits, sizes - category_hits], 1)  # (I,4)
    totals = np.zeros((NUM_LABELS, 4))
    np.add.at(totals, label, counts * (_AVERAGE_SIZE[label] / sizes)[:, None])
    return totals


def cityscapes_scores(confusion: np.ndarray, hits: np.ndarray) -> dict[str, float]:
    """In percent IoU, iIoU, IoU_sup, iIoU_sup, and IoU-NAME of each class; NaN without pixels.

    Shapes: (34,34), (34,4), see `confusion_matrix` and `instance_hits`
    """
    args = scores.CArgs()
    args.evalLabels = list(range(NUM_LABELS))
    stats = _instance_stats(hits)
    names = {i: id2label[i].name for i in EVALUATED}
    parts = {
        "IoU": {names[i]: scores.getIouScoreForLabel(i, confusion, args) for i in names},
        "iIoU": {
            names[i]: scores.getInstanceIouScoreForLabel(i, confusion, stats, args) for i in names
        },
        "IoU_sup": {c: scores.getIouScoreForCategory(c, confusion, args) for c in category2labels},
        "iIoU_sup": {
            c: scores.getInstanceIouScoreForCategory(c, confusion, stats, args)
            for c in category2labels
        },
    }
    means = {key: 100 * scores.getScoreAverage(part, args) for key, part in parts.items()}
    return means | {f"IoU-{name}": 100 * value for name, value in parts["IoU"].items()}


def _instance_stats(hits: np.ndarray) -> dict:
    """`hits` as cityscapesscripts keeps them."""
    stats = scores.generateInstanceStats(scores.args)
    for label in (id2label[i] for i in EVALUATED):
        row = hits[label.id]
        if label.name in stats["classes"]:
            stats["classes"][label.name] |= {"tpWeighted": row[0], "fnWeighted": row[1]}
        if label.category in stats["categories"]:
            stats["categories"][label.category]["tpWeighted"] += row[2]
            stats["categories"][label.category]["fnWeighted"] += row[3]
    return stats


def _sum_by_name(ranks: list[Counts]) -> np.ndarray:
    merged = {name: counts for rank in ranks for name, counts in rank.items()}
    return sum(merged[name] for name in sorted(merged))
