"""The picture of predictions beside the truth that a training ends with."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog
from detectron2.data.detection_utils import read_image
from detectron2.evaluation import inference_context
from detectron2.utils.colormap import colormap
from detectron2.utils.visualizer import GenericMask, Visualizer
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mask2former.config import predicted_classes
from mask2former.data import build_mapper
from mask2former.evaluation.segment_ids import read_segment_ids

NUM_ROWS = 4
NO_CLASS = -1
IGNORED = np.array([0, 0, 0], np.uint8)  # colour of pixels that have no class
MIN_SCORE = 0.5  # of an instance, to be drawn
NAMED_SHARE = 0.01  # of the image, from which on a segment's name is written into it
MIN_WIDTH = 800  # of a picture with names in it, so that they can be read
PIXELS_PER_INCH = 100


class Classes(NamedTuple):
    """What the model's classes are called, and their colours (K,3) uint8."""

    names: Sequence[str]
    colours: np.ndarray

    @classmethod
    def of(cls, metadata: Metadata, num_classes: int) -> "Classes":
        """A dataset of the user's own need have neither."""
        names = predicted_classes(metadata) or [str(i) for i in range(num_classes)]
        lists = (metadata.get("stuff_colors"), metadata.get("thing_colors"))
        known = [x for x in lists if x and len(x) == len(names)]
        colours = known[0] if known else np.resize(colormap(rgb=True), (len(names), 3))
        return cls(names, np.array(colours, np.uint8))


class Segment(NamedTuple):
    """A part of an image that is to be drawn."""

    mask: np.ndarray  # (H,W) bool
    category: int
    text: str


Row = tuple[np.ndarray, np.ndarray, np.ndarray]  # pictures of image, ground truth, prediction
Drawn = tuple[np.ndarray, np.ndarray, set[int]]  # ground truth, prediction, classes in them
# From the image, the dataset's dict and the model's result.
Painter = Callable[[np.ndarray, dict, dict, Classes], Drawn]


def draw_predictions(cfg: CfgNode, model: nn.Module, dataset_name: str, picture_file: str) -> bool:
    """Rows of image, ground truth and prediction, in the classes' colours.

    Drawn is the first that the model predicts and the dataset knows of: panoptic segments,
    instances, or the class of each pixel.

    Returns:
        whether there was anything to draw.
    """
    choice = _to_draw(cfg, dataset_name)
    if choice is None:
        return False
    samples, draw = choice
    spread = np.linspace(0, len(samples) - 1, min(NUM_ROWS, len(samples))).astype(int)
    mapper = build_mapper(cfg, is_train=False)
    classes = Classes.of(MetadataCatalog.get(dataset_name), cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES)
    rows, present = [], set()
    for sample in (samples[i] for i in spread):
        image = read_image(sample["file_name"], "RGB")
        *pictures, shown = draw(image, sample, _predict(model, mapper(sample)), classes)
        rows.append((image, *pictures))
        present |= shown
    _draw_rows(rows, classes, present, picture_file)
    return True


def _predict(model: nn.Module, mapped: dict) -> dict:
    # One process draws; a wrapped model would wait for the others.
    model = model.module if isinstance(model, DistributedDataParallel) else model
    with inference_context(model), torch.no_grad():
        return model([mapped])[0]


def _pixels(image: np.ndarray, sample: dict, result: dict, classes: Classes) -> Drawn:
    truth = read_image(sample["sem_seg_file_name"])
    prediction = result["sem_seg"].argmax(0).cpu().numpy()
    labels = np.union1d(truth, prediction)
    shown = {int(i) if i < len(classes.names) else NO_CLASS for i in labels}
    return coloured(truth, classes.colours), coloured(prediction, classes.colours), shown


def _panoptic(image: np.ndarray, sample: dict, result: dict, classes: Classes) -> Drawn:
    def segments(ids: np.ndarray, infos: list[dict]) -> list[Segment]:
        return [
            Segment(ids == info["id"], info["category_id"], classes.names[info["category_id"]])
            for info in infos
        ]

    ids, infos = result["panoptic_seg"]
    truth = read_segment_ids(sample["pan_seg_file_name"])
    return _over_image(
        image,
        segments(truth, sample["segments_info"]),
        segments(ids.cpu().numpy(), infos),
        classes,
    )


def _instances(image: np.ndarray, sample: dict, result: dict, classes: Classes) -> Drawn:
    found = result["instances"].to("cpu")
    found = found[found.scores >= MIN_SCORE]
    truth = [
        Segment(
            GenericMask(one["segmentation"], *image.shape[:2]).mask != 0,
            one["category_id"],
            classes.names[one["category_id"]],
        )
        for one in sample["annotations"]
    ]
    prediction = [
        Segment(mask, category, f"{classes.names[category]} {100 * score:.0f}%")
        for mask, category, score in zip(
            found.pred_masks.numpy(), found.pred_classes.tolist(), found.scores.tolist()
        )
    ]
    return _over_image(image, truth, prediction, classes)


def _over_image(
    image: np.ndarray, truth: list[Segment], prediction: list[Segment], classes: Classes
) -> Drawn:
    shown = {segment.category for segment in (*truth, *prediction)}
    return outlined(image, truth, classes), outlined(image, prediction, classes), shown


# The switch of MODEL.MASK_FORMER.TEST, what a dataset's dict then has, and what draws it.
PAINTERS: tuple[tuple[str, str, Painter], ...] = (
    ("PANOPTIC_ON", "pan_seg_file_name", _panoptic),
    ("INSTANCE_ON", "annotations", _instances),
    ("SEMANTIC_ON", "sem_seg_file_name", _pixels),
)


def _to_draw(cfg: CfgNode, dataset_name: str) -> tuple[list[dict], Painter] | None:
    samples = DatasetCatalog.get(dataset_name)
    for switch, key, draw in PAINTERS:
        known = [sample for sample in samples if sample.get(key)]
        if cfg.MODEL.MASK_FORMER.TEST[switch] and known:
            return known, draw
    return None


def _draw_rows(rows: Sequence[Row], classes: Classes, present: set[int], picture_file: str) -> None:
    heights = [4.0 * image.shape[0] / image.shape[1] for image, _, _ in rows]
    figure = Figure(figsize=(12, sum(heights) + 1.2), layout="constrained")
    grid = figure.subplots(len(rows), 3, squeeze=False, height_ratios=heights)
    for axes, pictures in zip(grid, rows):
        for axis, picture in zip(axes, pictures):
            axis.imshow(picture)
    for axis, title in zip(grid[0], ("image", "ground truth", "prediction")):
        axis.set_title(title)
    for axis in grid.flat:
        axis.set_axis_off()
    legend = [
        Patch(color=classes.colours[i] / 255, label=classes.names[i])
        for i in sorted(present - {NO_CLASS})
    ]
    if NO_CLASS in present:
        legend.append(Patch(color=IGNORED / 255, label="no class"))
    figure.legend(handles=legend, loc="outside lower center", ncols=7, fontsize=8)
    figure.savefig(picture_file, dpi=PIXELS_PER_INCH)


def outlined(image: np.ndarray, segments: list[Segment], classes: Classes) -> np.ndarray:
    """The image under the segments in their classes' colours, the small ones on top.

    Shapes: (H,W,3) -> as large or larger, uint8
    """
    canvas = Visualizer(image, scale=max(1.0, MIN_WIDTH / image.shape[1]))
    for mask, category, text in sorted(segments, key=lambda segment: -segment.mask.sum()):
        canvas.draw_binary_mask(
            mask.astype(np.uint8),
            tuple(classes.colours[category] / 255),
            edge_color="white",
            text=text if mask.mean() >= NAMED_SHARE else None,
            alpha=0.5,
            area_threshold=0,
        )
    return canvas.get_output().get_image()


def coloured(labels: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """The colour of each pixel's class.

    Shapes: (H,W) with values outside 0..K-1 where there is no class, (K,3) -> (H,W,3) uint8
    """
    has_class = labels < len(colours)
    picture = np.empty((*labels.shape, 3), np.uint8)
    picture[has_class] = colours[labels[has_class]]
    picture[~has_class] = IGNORED
    return picture
