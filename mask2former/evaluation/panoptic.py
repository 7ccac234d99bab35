"""Panoptic Quality, of datasets whose pictures may lie in several folders."""

from mask2former.evaluation.reference import PanopticEvaluator

__all__ = ["PanopticEvaluator"]
