"""The two pictures that a training ends with: its losses, and predictions beside the truth."""

import json
import re
from collections.abc import Sequence

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog
from detectron2.data.detection_utils import read_image
from detectron2.evaluation import inference_context
from detectron2.utils.colormap import colormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mask2former.data import build_mapper

SMOOTHING = 20  # lines of metrics.json
NUM_ROWS = 4
IGNORED = np.array([0, 0, 0], np.uint8)  # colour of pixels that have no class


def draw_loss_curve(metrics_file: str, picture_file: str) -> None:
    """Losses over iterations, each as it was and smoothed: the sum, and its parts.

    A part is summed over the decoder's layers: loss_ce is loss_ce + loss_ce_0 + loss_ce_1 + ...
    """
    with open(metrics_file, encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    lines = [line for line in lines if "total_loss" in line]
    iterations = [line["iteration"] for line in lines]
    curves = {"total_loss": [line["total_loss"] for line in lines]}
    parts = {re.sub(r"_\d+$", "", k) for line in lines for k in line if k.startswith("loss_")}
    for part in sorted(parts):
        names = [k for k in lines[0] if re.fullmatch(rf"{part}(_\d+)?", k)]
        curves[part] = [sum(line.get(name, np.nan) for name in names) for line in lines]

    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    for name, values in curves.items():
        (line,) = axes.plot(iterations, values, alpha=0.25, linewidth=1)
        axes.plot(iterations, smoothed(values), color=line.get_color(), label=name)
    axes.set(xlabel="iteration", ylabel="loss, summed over the decoder's layers")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(picture_file, dpi=120)


def smoothed(values: Sequence[float], window: int = SMOOTHING) -> np.ndarray:
    """Mean of each value and those before it, `window` at most."""
    sums = np.cumsum(np.insert(np.asarray(values, float), 0, 0.0))
    ends = np.arange(1, len(sums))
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def draw_predictions(cfg: CfgNode, model: nn.Module, dataset_name: str, picture_file: str) -> bool:
    """Rows of image, ground truth and prediction, in the classes' colours, with a legend.

    Returns:
        whether there was anything to draw: only a semantic dataset has a class for each pixel.
    """
    metadata = MetadataCatalog.get(dataset_name)
    samples = [s for s in DatasetCatalog.get(dataset_name) if "sem_seg_file_name" in s]
    if not samples or not cfg.MODEL.MASK_FORMER.TEST.SEMANTIC_ON:
        return False
    spread = np.linspace(0, len(samples) - 1, min(NUM_ROWS, len(samples))).astype(int)
    mapper = build_mapper(cfg, is_train=False)
    rows = [
        (
            read_image(sample["file_name"], "RGB"),
            read_image(sample["sem_seg_file_name"]),
            _predict(model, mapper(sample)),
        )
        for sample in (samples[i] for i in spread)
    ]
    _draw_rows(rows, metadata, picture_file)
    return True


def _predict(model: nn.Module, mapped: dict) -> np.ndarray:
    # One process draws; a wrapped model would wait for the others.
    model = model.module if isinstance(model, DistributedDataParallel) else model
    with inference_context(model), torch.no_grad():
        return model([mapped])[0]["sem_seg"].argmax(0).cpu().numpy()


def _draw_rows(rows: Sequence[tuple], metadata: Metadata, picture_file: str) -> None:
    names = metadata.stuff_classes
    # A dataset of the user's own need not have colours.
    colours = metadata.get("stuff_colors") or np.resize(colormap(rgb=True), (len(names), 3))
    colours = np.array(colours, np.uint8)  # (K,3)
    height, width = rows[0][0].shape[:2]
    row_height = 4.0 * height / width
    figure = Figure(figsize=(12, len(rows) * row_height + 1.2), layout="constrained")
    grid = figure.subplots(len(rows), 3, squeeze=False)
    present = np.zeros(len(names), bool)
    for axes, (image, truth, prediction) in zip(grid, rows):
        axes[0].imshow(image)
        for axis, labels in zip(axes[1:], (truth, prediction)):
            axis.imshow(coloured(labels, colours))
            present[np.unique(labels[labels < len(names)])] = True
    for axis, title in zip(grid[0], ("image", "ground truth (black: no class)", "prediction")):
        axis.set_title(title)
    for axis in grid.flat:
        axis.set_axis_off()
    legend = [Patch(color=colours[i] / 255, label=names[i]) for i in np.flatnonzero(present)]
    figure.legend(handles=legend, loc="outside lower center", ncols=7, fontsize=8)
    figure.savefig(picture_file, dpi=100)


def coloured(labels: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """The colour of each pixel's class.

    Shapes: (H,W) with values outside 0..K-1 where there is no class, (K,3) -> (H,W,3) uint8
    """
    has_class = labels < len(colours)
    picture = np.empty((*labels.shape, 3), np.uint8)
    picture[has_class] = colours[labels[has_class]]
    picture[~has_class] = IGNORED
    return picture
