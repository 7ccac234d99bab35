"""Judging saved predictions, without the model that made them."""

import tempfile
from collections import OrderedDict
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from tqdm import tqdm

from mask2former.evaluation.build import SWITCHES, build_evaluator
from mask2former.evaluation.measures import MEASURES
from mask2former.evaluation.predictions.reader import (
    PredictionReader,
    find_folder,
    outputs_there,
    with_size,
)


def judge_predictions(
    cfg: CfgNode, dataset_name: str, predictions: Path, show_progress: bool = True
) -> OrderedDict:
    """What an evaluation of the model would have given.

    Args:
        cfg: its TEST.EVALUATOR judges all that the folder has and the dataset measures.
        predictions: see `find_folder`.

    Raises:
        FileNotFoundError: there are no predictions, not of each image, or no ground truth.
        ValueError: they are broken or of another dataset, or there is no evaluator for it.
    """
    folder = find_folder(predictions, dataset_name, len(cfg.DATASETS.TEST) == 1)
    there = outputs_there(folder, dataset_name)
    with tempfile.TemporaryDirectory(prefix="judged") as scratch:
        evaluator = build_evaluator(config_of_outputs(cfg, there), dataset_name, scratch)
        kind = MetadataCatalog.get(dataset_name).evaluator_type
        measured = there & {measure.output for measure in MEASURES[kind]}
        samples = DatasetCatalog.get(dataset_name)
        read = PredictionReader(dataset_name, samples, folder, measured)
        evaluator.reset()
        for sample in tqdm(samples, dataset_name, unit="image", disable=not show_progress):
            inputs = [with_size(sample)]
            evaluator.process(inputs, read(inputs))
        return evaluator.evaluate()


def config_of_outputs(cfg: CfgNode, outputs: set[str]) -> CfgNode:
    """The config of a model with these outputs, that saves nothing."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.META_ARCHITECTURE = "MaskFormer"
    for output, switch in SWITCHES.items():
        cfg.MODEL.MASK_FORMER.TEST[switch] = output in outputs
    cfg.TEST.SAVE_PREDICTIONS = False
    cfg.freeze()
    return cfg
