"""Which evaluators a dataset gets: a table from its metadata's evaluator_type."""

from collections.abc import Callable

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators, SemSegEvaluator

from mask2former.evaluation.cityscapes import CityscapesSemSegEvaluator


class PixelEvaluator(SemSegEvaluator):
    """SemSegEvaluator beside an evaluator whose results are "sem_seg": its own are "sem_seg_pixel".

    The prefix is also that of its metrics in logs: sem_seg_pixel/mIoU, ...
    """

    def evaluate(self) -> dict | None:
        results = super().evaluate()
        return results and {"sem_seg_pixel": results["sem_seg"]}


# evaluator_type -> functions of (dataset name, folder for the results)
EVALUATORS: dict[str, tuple[Callable[[str, str], DatasetEvaluator], ...]] = {
    "sem_seg": (lambda name, folder: SemSegEvaluator(name, output_dir=folder),),
    "cityscapes_sem_seg": (
        lambda name, folder: CityscapesSemSegEvaluator(name),
        lambda name, folder: PixelEvaluator(name, output_dir=folder),
    ),
}


def build_evaluator(cfg: CfgNode, dataset_name: str, output_dir: str) -> DatasetEvaluator:
    """The evaluators of a dataset, as one.

    Args:
        output_dir: where they may write.

    Raises:
        ValueError: there is none for this kind of dataset.
    """
    kind = MetadataCatalog.get(dataset_name).get("evaluator_type")
    if kind not in EVALUATORS:
        raise ValueError(
            f"{dataset_name}: no evaluator for evaluator_type {kind!r}, only for "
            f"{', '.join(EVALUATORS)}; set it in the dataset's metadata"
        )
    return DatasetEvaluators([make(dataset_name, output_dir) for make in EVALUATORS[kind]])
