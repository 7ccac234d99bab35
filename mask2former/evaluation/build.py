"""Which evaluators a dataset gets, by its metadata's evaluator_type and the config."""

import logging
from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators

from mask2former.evaluation.measures import MEASURES, Measure
from mask2former.evaluation.predictions import PredictionWriter

logger = logging.getLogger(__name__)

# Output of a model -> the key of MODEL.MASK_FORMER.TEST that switches it on
SWITCHES = {"sem_seg": "SEMANTIC_ON", "instances": "INSTANCE_ON", "panoptic_seg": "PANOPTIC_ON"}


def build_evaluator(cfg: CfgNode, dataset_name: str, output_dir: str) -> DatasetEvaluator:
    """The evaluators of a dataset for the outputs that a config switches on, as one.

    TEST.EVALUATOR says which: ours, or those that leave the numbers to the reference tools. AP and
    mIoU of a panoptic dataset that has no files for them are measured on its segments, or left out
    if it has no things. The log says so, and who judges. With TEST.SAVE_PREDICTIONS, what is judged
    is also written.

    Args:
        output_dir: where they may write.

    Raises:
        ValueError: there is none for this kind of dataset or these outputs, or the dataset's
            metadata lack what its evaluator needs.
        FileNotFoundError: ground truth is not there.
    """
    kind = MetadataCatalog.get(dataset_name).get("evaluator_type")
    if kind not in MEASURES:
        raise ValueError(
            f"{dataset_name}: no evaluator for evaluator_type {kind!r}, only for "
            f"{', '.join(MEASURES)}; set it in the dataset's metadata"
        )
    outputs = model_outputs(cfg)
    measures = []
    for measure in MEASURES[kind]:
        if measure.output not in outputs:
            continue
        problem = measure.what_is_missing(dataset_name)
        if problem is not None and measure.otherwise is not None:
            reason, measure = problem, measure.otherwise
            problem = measure.what_is_missing(dataset_name)
            if problem is None:
                logger.info("%s is measured on the panoptic segments (%s)", measure.name, reason)
        if problem is None:
            measures.append(measure)
        elif measure.is_optional:
            logger.info("No %s: %s", measure.name, problem)
        else:
            raise problem
    if not measures:
        switches = sorted({SWITCHES[measure.output] for measure in MEASURES[kind]})
        raise ValueError(
            f"{dataset_name}: the model has no output that its evaluator_type {kind} can measure; "
            f"set one of MODEL.MASK_FORMER.TEST.{', '.join(switches)}, or evaluate another dataset"
        )
    is_fast = cfg.TEST.EVALUATOR == "fast"
    logger.info("%s is judged by %s", dataset_name, _who_judges(measures, is_fast))
    makers = [measure.fast if is_fast else measure.reference for measure in measures]
    evaluators = [make(cfg, dataset_name, output_dir) for make in makers]
    if cfg.TEST.SAVE_PREDICTIONS:
        # First, so that they are there even if judging them fails.
        judged = {measure.output for measure in measures}
        evaluators.insert(0, PredictionWriter(dataset_name, judged, output_dir))
    return DatasetEvaluators(evaluators)


def model_outputs(cfg: CfgNode) -> set[str]:
    """Which of "sem_seg", "instances" and "panoptic_seg" the model of a config gives."""
    if cfg.MODEL.META_ARCHITECTURE == "SemanticSegmentor":  # detectron2's, of per-pixel classes
        return {"sem_seg"}
    return {output for output, key in SWITCHES.items() if cfg.MODEL.MASK_FORMER.TEST[key]}


def _who_judges(measures: Sequence[Measure], is_fast: bool) -> str:
    """As in "our own evaluators: PQ, mIoU; hotcoco: AP"."""
    judged: dict[str, list[str]] = {}
    for measure in measures:
        judge = measure.fast_tool() if is_fast else measure.tool
        judged.setdefault(judge, []).append(measure.name)
    return "; ".join(f"{judge}: {', '.join(names)}" for judge, names in judged.items())
