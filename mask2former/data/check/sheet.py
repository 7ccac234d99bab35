"""A contact sheet: some pictures of a dataset with their masks drawn in."""

import os

import cv2
import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.utils.colormap import colormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from mask2former.data.check.dataset import Findings
from mask2former.data.check.objects import Rules, objects_of
from mask2former.data.errors import SampleError
from mask2former.data.problems import Problem
from mask2former.data.sample_files import read_picture

COLUMNS = 4
MAX_SIDE = 480  # pixels of a picture on the sheet
OPACITY = 0.55
MAX_LEGEND = 40  # classes


def draw_sheet(findings: Findings, path: str, count: int = 12) -> int:
    """Draw `count` pictures, spread over the dataset, with a legend of the classes they show.

    Pictures that cannot be read are passed over.

    Returns:
        how many pictures there are on it; without any it is not written.
    """
    colors = class_colors(findings)
    chosen = np.linspace(0, len(findings.samples) - 1, min(count, len(findings.samples)))
    tiles, shown = [], set()
    for index in chosen.round().astype(int):
        sample = findings.samples[index]
        try:
            picture, classes = overlay(sample, findings.rules, colors)
        except SampleError:
            continue
        tiles.append((os.path.basename(sample["file_name"]), picture))
        shown |= classes
    if not tiles:
        return 0
    rows = -(-len(tiles) // COLUMNS)
    tallest = max(picture.shape[0] / picture.shape[1] for _, picture in tiles)
    row_height = 4 * min(tallest, 1.5) + 0.3  # inches; a column has 4
    figure = Figure(figsize=(4 * COLUMNS, row_height * rows + 1), layout="constrained")
    axes = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, (name, picture) in zip(axes, tiles):
        axis.imshow(picture)
        axis.set_title(name, fontsize=8)
    legend = [Patch(color=colors[i] / 255, label=findings.classes[i]) for i in sorted(shown)]
    figure.legend(handles=legend[:MAX_LEGEND], loc="outside lower center", ncols=8, fontsize=8)
    figure.savefig(path, dpi=100)
    return len(tiles)


def class_colors(findings: Findings) -> np.ndarray:
    """The colours (K,3) uint8 that the metadata gives, or some."""
    metadata = MetadataCatalog.get(findings.name)
    for key in ("stuff_colors", "thing_colors"):
        colors = metadata.get(key) or ()
        if len(colors) == len(findings.classes):
            return np.array(colors, np.uint8)
    return np.resize(colormap(rgb=True), (len(findings.classes), 3)).astype(np.uint8)


def overlay(sample: dict, rules: Rules, colors: np.ndarray) -> tuple[np.ndarray, set[int]]:
    """The picture (h,w,3) uint8, made small, its masks in colour with a white outline.

    Returns:
        and the classes that it shows.

    Raises:
        SampleError: the picture cannot be read.
    """
    image = read_picture(sample["file_name"], "RGB")  # (H,W,3)
    scale = min(1, MAX_SIDE / max(image.shape[:2]))
    size = tuple(max(1, round(side * scale)) for side in image.shape[1::-1])
    picture = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    classes, outlines = set(), []
    for found in objects_of(sample, image.shape[:2], rules):
        if isinstance(found, Problem):
            continue
        category, mask = found
        small = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        is_inside = small > 0
        color = OPACITY * colors[category]
        picture[is_inside] = ((1 - OPACITY) * picture[is_inside] + color).astype(np.uint8)
        outlines += cv2.findContours(small, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)[0]
        classes.add(category)
    picture = np.ascontiguousarray(picture)
    cv2.drawContours(picture, outlines, -1, (255, 255, 255), 1)
    return picture, classes
