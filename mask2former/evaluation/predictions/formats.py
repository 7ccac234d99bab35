"""Which formats the predictions of a dataset have."""

from detectron2.data import MetadataCatalog

from mask2former.evaluation.predictions.cityscapes import CityscapesInstances, CityscapesLabels
from mask2former.evaluation.predictions.coco_instances import CocoInstances
from mask2former.evaluation.predictions.format import Format
from mask2former.evaluation.predictions.label_maps import LabelMaps
from mask2former.evaluation.predictions.panoptic import PanopticPngs

OF_CITYSCAPES = (CityscapesLabels, CityscapesInstances, PanopticPngs)
OF_ALL_OTHERS = (LabelMaps, CocoInstances, PanopticPngs)


def formats_of(dataset_name: str) -> tuple[type[Format], ...]:
    """One for each output of a model."""
    kind = MetadataCatalog.get(dataset_name).get("evaluator_type") or ""
    return OF_CITYSCAPES if kind.startswith("cityscapes_") else OF_ALL_OTHERS
