"""What is measured of each kind of dataset, what that stands on, and which evaluators do it.

Each measure has two: ours, and one that leaves the numbers to the reference tool.
"""

import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Optional

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators
from detectron2.utils.file_io import PathManager

from mask2former.evaluation import reference
from mask2former.evaluation.cityscapes import CityscapesSemSegEvaluator
from mask2former.evaluation.cityscapes_instances import CityscapesInstanceEvaluator
from mask2former.evaluation.coco_ap import find_judge
from mask2former.evaluation.instances import InstanceSegEvaluator
from mask2former.evaluation.panoptic import PanopticEvaluator
from mask2former.evaluation.panoptic_truth import ThingEvaluator, label_maps_of_segments
from mask2former.evaluation.sem_seg import SemSegEvaluator

Maker = Callable[[CfgNode, str, str], DatasetEvaluator]  # of a config, dataset name and folder


@dataclass(frozen=True)
class Measure:
    """What is measured, and what it stands on."""

    name: str  # for sentences
    output: str  # of the model
    fast: Maker
    reference: Maker
    tool: str  # that the reference is
    fast_tool: Callable[[], str] = lambda: "our own evaluators"
    metadata: tuple[str, ...] = ()  # keys that have to be there
    files: tuple[str, ...] = ()  # keys that have to be there, and the files or folders they name
    of_each: str = ""  # key of the dataset's dicts that has to be there, and the file it names
    otherwise: Optional["Measure"] = None  # where something is missing
    is_optional: bool = False  # left out where something is missing; else that is an error

    def what_is_missing(self, dataset_name: str) -> Exception | None:
        """The error that says what of its ground truth a dataset lacks."""
        metadata = MetadataCatalog.get(dataset_name)
        for key in (*self.metadata, *self.files):
            if metadata.get(key) is None:
                return ValueError(
                    f"{dataset_name}: its metadata have no {key}, which {self.name} needs; set it"
                )
        if self.output == "instances" and metadata.get("thing_dataset_id_to_contiguous_id") == {}:
            return ValueError(
                f"{dataset_name}: none of its classes is a thing, which {self.name} is about"
            )
        paths = [(key, metadata.get(key)) for key in self.files]
        if self.of_each:
            first = next(iter(DatasetCatalog.get(dataset_name)), {})
            if self.of_each not in first:
                return ValueError(
                    f"{dataset_name}: its dicts have no {self.of_each}, which {self.name} needs; "
                    "give them these files"
                )
            paths.append((self.of_each, first[self.of_each]))
        for key, path in paths:
            if not PathManager.exists(path):
                return FileNotFoundError(
                    f"{path}: not there, but {dataset_name} names it as {key}, which {self.name} "
                    "needs; put it there or prepare the dataset"
                )
        return None


def _sem_seg(cfg: CfgNode, name: str, folder: str, **options: Any) -> DatasetEvaluator:
    return SemSegEvaluator(name, **options)


def _reference_sem_seg(cfg: CfgNode, name: str, folder: str, **options: Any) -> DatasetEvaluator:
    return reference.sem_seg_evaluator(name, folder, **options)


def _of_segments(
    make: Callable[..., DatasetEvaluator], cfg: CfgNode, name: str, folder: str
) -> DatasetEvaluator:
    with label_maps_of_segments(name) as (other, load):
        return make(cfg, other, folder, sem_seg_loading_fn=load)


def _cityscapes_sem_seg_and_pixels(cfg: CfgNode, name: str, folder: str) -> DatasetEvaluator:
    both = (
        reference.CityscapesSemSegEvaluator(name),
        reference.PixelEvaluator(name, output_dir=folder),
    )
    return DatasetEvaluators(both)


def _instances(
    evaluator: type[InstanceSegEvaluator], fast: bool, cfg: CfgNode, name: str, folder: str
) -> DatasetEvaluator:
    return evaluator(
        name,
        tasks=("bbox", "segm"),
        output_dir=None if fast else folder,
        use_fast_impl=fast,
        boundary=cfg.MODEL.MASK_FORMER.TEST.BOUNDARY_AP,
    )


def _fast_coco_judge() -> str:
    name = find_judge(fast=True).name
    return f"{name} {importlib.metadata.version(name)}"


SEM_SEG = Measure(
    "mIoU",
    "sem_seg",
    fast=_sem_seg,
    reference=_reference_sem_seg,
    tool="detectron2's SemSegEvaluator",
    metadata=("stuff_classes", "ignore_label"),
    of_each="sem_seg_file_name",
)
INSTANCES = Measure(
    "AP",
    "instances",
    fast=partial(_instances, InstanceSegEvaluator, True),
    reference=partial(_instances, InstanceSegEvaluator, False),
    tool="pycocotools",
    fast_tool=_fast_coco_judge,
)
PANOPTIC = Measure(
    "PQ",
    "panoptic_seg",
    fast=lambda cfg, name, folder: PanopticEvaluator(name),
    reference=lambda cfg, name, folder: reference.PanopticEvaluator(name, folder),
    tool="panopticapi",
    metadata=("thing_dataset_id_to_contiguous_id", "stuff_dataset_id_to_contiguous_id"),
    files=("panoptic_json", "panoptic_root"),
)
SEM_SEG_OF_SEGMENTS = replace(
    SEM_SEG,
    fast=partial(_of_segments, _sem_seg),
    reference=partial(_of_segments, _reference_sem_seg),
    of_each="pan_seg_file_name",
    is_optional=True,
)
INSTANCES_OF_SEGMENTS = replace(
    INSTANCES,
    fast=partial(_instances, ThingEvaluator, True),
    reference=partial(_instances, ThingEvaluator, False),
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
    "IoU",
    "sem_seg",
    fast=lambda cfg, name, folder: CityscapesSemSegEvaluator(name),
    reference=lambda cfg, name, folder: reference.CityscapesSemSegEvaluator(name),
    tool="cityscapesscripts",
    files=("gt_dir",),
)
CITYSCAPES_SEM_SEG_AND_PIXELS = replace(
    CITYSCAPES_SEM_SEG,
    name="IoU and mIoU",
    fast=lambda cfg, name, folder: CityscapesSemSegEvaluator(name, with_pixels=True),
    reference=_cityscapes_sem_seg_and_pixels,
    tool="cityscapesscripts and detectron2's SemSegEvaluator",
    metadata=SEM_SEG.metadata,
    of_each=SEM_SEG.of_each,
)
CITYSCAPES_INSTANCES = Measure(
    "AP",
    "instances",
    fast=lambda cfg, name, folder: CityscapesInstanceEvaluator(name),
    reference=lambda cfg, name, folder: reference.CityscapesInstanceEvaluator(name),
    tool="cityscapesscripts",
    metadata=("thing_classes",),
    files=("gt_dir",),
)

# evaluator_type of a dataset -> what is measured
MEASURES: dict[str, tuple[Measure, ...]] = {
    "sem_seg": (SEM_SEG,),
    "coco": (INSTANCES,),
    "coco_panoptic_seg": _PANOPTIC_AND_MORE,
    "ade20k_panoptic_seg": _PANOPTIC_AND_MORE,
    "mapillary_vistas_panoptic_seg": _PANOPTIC_AND_MORE,
    "cityscapes_sem_seg": (CITYSCAPES_SEM_SEG_AND_PIXELS,),
    "cityscapes_instance": (CITYSCAPES_INSTANCES,),
    "cityscapes_panoptic_seg": (PANOPTIC, CITYSCAPES_INSTANCES, CITYSCAPES_SEM_SEG),
}
