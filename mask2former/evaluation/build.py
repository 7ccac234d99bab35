"""Which evaluators a dataset gets: a table from its metadata's evaluator_type."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Optional

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import (
    DatasetEvaluator,
    DatasetEvaluators,
    SemSegEvaluator,
)
from detectron2.utils.file_io import PathManager

from mask2former.evaluation.cityscapes import CityscapesSemSegEvaluator
from mask2former.evaluation.cityscapes_instances import CityscapesInstanceEvaluator
from mask2former.evaluation.instances import InstanceSegEvaluator
from mask2former.evaluation.panoptic import PanopticEvaluator
from mask2former.evaluation.panoptic_truth import ThingEvaluator, label_maps_of_segments
from mask2former.evaluation.reference import PixelEvaluator, ScoresOnlyEvaluator

logger = logging.getLogger(__name__)

# Output of a model -> the key of MODEL.MASK_FORMER.TEST that switches it on
SWITCHES = {"sem_seg": "SEMANTIC_ON", "instances": "INSTANCE_ON", "panoptic_seg": "PANOPTIC_ON"}


def _sem_seg(cfg: CfgNode, name: str, folder: str, **options: Any) -> DatasetEvaluator:
    metadata = MetadataCatalog.get(name)
    ids = metadata.get("stuff_dataset_id_to_contiguous_id")
    if ids is None or set(ids.values()) >= set(range(len(metadata.stuff_classes))):
        return SemSegEvaluator(name, output_dir=folder, **options)
    return ScoresOnlyEvaluator(name, **options)


def _sem_seg_of_segments(cfg: CfgNode, name: str, folder: str) -> DatasetEvaluator:
    with label_maps_of_segments(name) as (other, load):
        return _sem_seg(cfg, other, folder, sem_seg_loading_fn=load)


def _instances(
    cfg: CfgNode,
    name: str,
    folder: str,
    evaluator: type[InstanceSegEvaluator] = InstanceSegEvaluator,
) -> DatasetEvaluator:
    return evaluator(
        name,
        tasks=("bbox", "segm"),
        output_dir=folder,
        use_fast_impl=False,  # but pycocotools, whose numbers papers give
        boundary=cfg.MODEL.MASK_FORMER.TEST.BOUNDARY_AP,
    )


@dataclass(frozen=True)
class Measure:
    """One evaluator, and what it stands on."""

    name: str  # for sentences
    output: str  # of the model
    make: Callable[[CfgNode, str, str], DatasetEvaluator]  # of a config, dataset name and folder
    metadata: tuple[str, ...] = ()  # keys that have to be there
    files: tuple[str, ...] = ()  # keys that have to be there, and the files or folders they name
    of_each: str = ""  # key of the dataset's dicts that has to be there, and the file it names
    otherwise: Optional["Measure"] = None  # where something is missing
    is_optional: bool = False  # left out where something is missing; else that is an error


SEM_SEG = Measure(
    "mIoU", "sem_seg", _sem_seg, ("stuff_classes", "ignore_label"), of_each="sem_seg_file_name"
)
INSTANCES = Measure("AP", "instances", _instances)
PANOPTIC = Measure(
    "PQ",
    "panoptic_seg",
    lambda cfg, name, folder: PanopticEvaluator(name),
    ("thing_dataset_id_to_contiguous_id", "stuff_dataset_id_to_contiguous_id"),
    ("panoptic_json", "panoptic_root"),
)
SEM_SEG_OF_SEGMENTS = replace(
    SEM_SEG, make=_sem_seg_of_segments, of_each="pan_seg_file_name", is_optional=True
)
INSTANCES_OF_SEGMENTS = replace(
    INSTANCES,
    make=partial(_instances, evaluator=ThingEvaluator),
    metadata=("thing_dataset_id_to_contiguous_id", "stuff_classes"),
    of_each="pan_seg_file_name",
    is_optional=True,
)
_PANOPTIC_AND_MORE = (
    PANOPTIC,
    replace(INSTANCES, files=("json_file",), otherwise=INSTANCES_OF_SEGMENTS),
    replace(SEM_SEG, otherwise=SEM_SEG_OF_SEGMENTS),
)
CITYSCAPES_SEM_SEG = Measure(
    "IoU", "sem_seg", lambda cfg, name, folder: CityscapesSemSegEvaluator(name), files=("gt_dir",)
)
CITYSCAPES_PIXELS = replace(
    SEM_SEG, make=lambda cfg, name, folder: PixelEvaluator(name, output_dir=folder)
)
CITYSCAPES_INSTANCES = Measure(
    "AP",
    "instances",
    lambda cfg, name, folder: CityscapesInstanceEvaluator(name),
    ("thing_classes",),
    ("gt_dir",),
)

EVALUATORS: dict[str, tuple[Measure, ...]] = {
    "sem_seg": (SEM_SEG,),
    "coco": (INSTANCES,),
    "coco_panoptic_seg": _PANOPTIC_AND_MORE,
    "ade20k_panoptic_seg": _PANOPTIC_AND_MORE,
    "mapillary_vistas_panoptic_seg": _PANOPTIC_AND_MORE,
    "cityscapes_sem_seg": (CITYSCAPES_SEM_SEG, CITYSCAPES_PIXELS),
    "cityscapes_instance": (CITYSCAPES_INSTANCES,),
    "cityscapes_panoptic_seg": (PANOPTIC, CITYSCAPES_INSTANCES, CITYSCAPES_SEM_SEG),
}


def build_evaluator(cfg: CfgNode, dataset_name: str, output_dir: str) -> DatasetEvaluator:
    """The evaluators of a dataset for the outputs that a config switches on, as one.

    AP and mIoU of a panoptic dataset that has no files for them are measured on its segments, or
    left out if it has no things. The log says so.

    Args:
        output_dir: where they may write.

    Raises:
        ValueError: there is none for this kind of dataset or these outputs, or the dataset's
            metadata lack what its evaluator needs.
        FileNotFoundError: ground truth is not there.
    """
    kind = MetadataCatalog.get(dataset_name).get("evaluator_type")
    if kind not in EVALUATORS:
        raise ValueError(
            f"{dataset_name}: no evaluator for evaluator_type {kind!r}, only for "
            f"{', '.join(EVALUATORS)}; set it in the dataset's metadata"
        )
    outputs = model_outputs(cfg)
    evaluators = []
    for measure in EVALUATORS[kind]:
        if measure.output not in outputs:
            continue
        problem = _what_is_missing(measure, dataset_name)
        if problem is not None and measure.otherwise is not None:
            reason, measure = problem, measure.otherwise
            problem = _what_is_missing(measure, dataset_name)
            if problem is None:
                logger.info("%s is measured on the panoptic segments (%s)", measure.name, reason)
        if problem is None:
            evaluators.append(measure.make(cfg, dataset_name, output_dir))
        elif measure.is_optional:
            logger.info("No %s: %s", measure.name, problem)
        else:
            raise problem
    if not evaluators:
        switches = sorted({SWITCHES[measure.output] for measure in EVALUATORS[kind]})
        raise ValueError(
            f"{dataset_name}: the model has no output that its evaluator_type {kind} can measure; "
            f"set one of MODEL.MASK_FORMER.TEST.{', '.join(switches)}, or evaluate another dataset"
        )
    return DatasetEvaluators(evaluators)


def model_outputs(cfg: CfgNode) -> set[str]:
    """Which of "sem_seg", "instances" and "panoptic_seg" the model of a config gives."""
    if cfg.MODEL.META_ARCHITECTURE == "SemanticSegmentor":  # detectron2's, of per-pixel classes
        return {"sem_seg"}
    return {output for output, key in SWITCHES.items() if cfg.MODEL.MASK_FORMER.TEST[key]}


def _what_is_missing(measure: Measure, dataset_name: str) -> Exception | None:
    """The error that says what of its ground truth a dataset lacks."""
    metadata = MetadataCatalog.get(dataset_name)
    for key in (*measure.metadata, *measure.files):
        if metadata.get(key) is None:
            return ValueError(
                f"{dataset_name}: its metadata have no {key}, which {measure.name} needs; set it"
            )
    if measure.output == "instances" and metadata.get("thing_dataset_id_to_contiguous_id") == {}:
        return ValueError(
            f"{dataset_name}: none of its classes is a thing, which {measure.name} is about"
        )
    paths = [(key, metadata.get(key)) for key in measure.files]
    if measure.of_each:
        first = next(iter(DatasetCatalog.get(dataset_name)), {})
        if measure.of_each not in first:
            return ValueError(
                f"{dataset_name}: its dicts have no {measure.of_each}, which {measure.name} needs; "
                "give them these files"
            )
        paths.append((measure.of_each, first[measure.of_each]))
    for key, path in paths:
        if not PathManager.exists(path):
            return FileNotFoundError(
                f"{path}: not there, but {dataset_name} names it as {key}, which {measure.name} "
                "needs; put it there or prepare the dataset"
            )
    return None
