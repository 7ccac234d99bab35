"""From the evaluator_type of a dataset to the numbers that its papers give."""

from mask2former.evaluation.build import build_evaluator
from mask2former.evaluation.cityscapes import CityscapesSemSegEvaluator
from mask2former.evaluation.cityscapes_instances import CityscapesInstanceEvaluator
from mask2former.evaluation.instances import InstanceSegEvaluator
from mask2former.evaluation.panoptic import PanopticEvaluator
from mask2former.evaluation.sem_seg import SemSegEvaluator

__all__ = [
    "CityscapesInstanceEvaluator",
    "CityscapesSemSegEvaluator",
    "InstanceSegEvaluator",
    "PanopticEvaluator",
    "SemSegEvaluator",
    "build_evaluator",
]
