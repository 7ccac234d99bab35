"""Predictions that are saved, to be judged later without the model, by any program."""

from mask2former.evaluation.predictions.reader import PredictionReader, find_folder, outputs_there
from mask2former.evaluation.predictions.writer import PredictionWriter

__all__ = ["PredictionReader", "PredictionWriter", "find_folder", "outputs_there"]
