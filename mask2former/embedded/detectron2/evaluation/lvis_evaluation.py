"""The name of LVIS's evaluator: scripts for many datasets import it, whichever they use."""

from detectron2 import _missing_attribute

from .evaluator import DatasetEvaluator


class LVISEvaluator(DatasetEvaluator):
    """Judging LVIS takes the real detectron2 and the package lvis.

    Raises:
        ImportError: it is to be made; says what to install.
    """

    def __init__(
        self,
        dataset_name: str,
        tasks: tuple[str, ...] | None = None,
        distributed: bool = True,
        output_dir: str | None = None,
        *,
        max_dets_per_image: int | None = None,
    ):
        _missing_attribute("detectron2.evaluation")("LVISEvaluator")
