"""Pictures of what a model predicts and of what a dataset says.

H W image size, N number of objects, K number of keypoints.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from PIL import Image

from detectron2.data import MetadataCatalog
from detectron2.data.catalog import Metadata
from detectron2.structures import BitMasks, Boxes, BoxMode, Instances, PolygonMasks
from detectron2.utils.colormap import random_color
from detectron2.utils.file_io import PathManager

from ._drawing import ColorMode, GenericMask, VisImage, grayscale, inner_point, jitter, to_numpy
from ._primitives import Primitives

__all__ = ["ColorMode", "GenericMask", "VisImage", "Visualizer"]

_OFF_WHITE = (1.0, 1.0, 240.0 / 255)
_RED = (1.0, 0.0, 0.0)
_KEYPOINT_THRESHOLD = 0.05  # less probable ones are not drawn


class Visualizer(Primitives):
    """Draws on one image; every method returns the picture, a VisImage, and they add up.

    Args:
        img_rgb: (H,W,3), values 0..255.
        metadata: names and colours: thing_classes, thing_colors, stuff_classes, stuff_colors,
            keypoint_names, keypoint_connection_rules; what is missing is numbered or random.
        scale: how much larger than the image the picture is.
        instance_mode: how instances get their colours.
        font_size_scale: makes all labels larger.
    """

    def __init__(
        self,
        img_rgb: np.ndarray,
        metadata: Metadata | None = None,
        scale: float = 1.0,
        instance_mode: ColorMode = ColorMode.IMAGE,
        font_size_scale: float = 1.0,
    ):
        self.img = to_numpy(img_rgb).clip(0, 255).astype(np.uint8)
        self.metadata = MetadataCatalog.get("__nonexist__") if metadata is None else metadata
        self.output = VisImage(self.img, scale=scale)
        self.cpu_device = torch.device("cpu")
        self.keypoint_threshold = _KEYPOINT_THRESHOLD
        self._instance_mode = instance_mode
        size = np.sqrt(self.output.height * self.output.width)
        self._default_font_size = max(size // 90, 10 // scale, 1) * font_size_scale

    def get_output(self) -> VisImage:
        return self.output

    # -------------------------------------------------------------------------- predictions
    def draw_instance_predictions(self, predictions: Instances, jittering: bool = True) -> VisImage:
        """Instances with any of pred_boxes, pred_classes, scores, pred_masks, pred_keypoints.

        Args:
            jittering: in ColorMode.SEGMENTATION, tell objects of a class apart by their shade.
        """
        predictions = predictions.to(self.cpu_device)
        fields = predictions.get_fields()
        classes = to_numpy(fields["pred_classes"]).tolist() if "pred_classes" in fields else None
        masks = fields.get("pred_masks")
        masks = None if masks is None else self._convert_masks(masks)
        if self._instance_mode == ColorMode.IMAGE_BW and masks:
            keep = np.any([mask.mask for mask in masks], axis=0)
            self.output.reset_image(grayscale(self.img, keep))
        return self.overlay_instances(
            boxes=fields.get("pred_boxes"),
            labels=_create_text_labels(
                classes, fields.get("scores"), self.metadata.get("thing_classes")
            ),
            masks=masks,
            keypoints=fields.get("pred_keypoints"),
            assigned_colors=self._class_colors(classes, jittering),
            alpha=0.8 if self._instance_mode == ColorMode.SEGMENTATION else 0.5,
        )

    def _class_colors(self, classes: list[int] | None, jittering: bool) -> list | None:
        """In ColorMode.SEGMENTATION the colours of the classes, where they are known."""
        colors = self.metadata.get("thing_colors")
        if self._instance_mode != ColorMode.SEGMENTATION or not colors or classes is None:
            return None
        chosen = [_to_unit(colors[index]) for index in classes]
        return [jitter(color) for color in chosen] if jittering else chosen

    def draw_sem_seg(
        self,
        sem_seg: np.ndarray | torch.Tensor,
        area_threshold: int | None = None,
        alpha: float = 0.8,
        draw_text: bool = True,
        edge_color: Any = _OFF_WHITE,
    ) -> VisImage:
        """Labels (H,W); those beyond stuff_classes, as the ignored ones, are left out."""
        sem_seg = to_numpy(sem_seg)
        labels, areas = np.unique(sem_seg, return_counts=True)
        names = self.metadata.stuff_classes
        for label in labels[np.argsort(-areas)].tolist():
            if 0 <= label < len(names):
                self.draw_binary_mask(
                    sem_seg == label,
                    color=self._stuff_color(label),
                    edge_color=edge_color,
                    text=names[label] if draw_text else None,
                    alpha=alpha,
                    area_threshold=area_threshold,
                )
        return self.output

    def _stuff_color(self, label: int) -> tuple[float, ...] | None:
        colors = self.metadata.get("stuff_colors")
        return _to_unit(colors[label]) if colors else None

    def draw_panoptic_seg(
        self,
        panoptic_seg: np.ndarray | torch.Tensor,
        segments_info: list[dict] | None,
        area_threshold: int | None = None,
        alpha: float = 0.7,
    ) -> VisImage:
        """Segment ids (H,W).

        Args:
            segments_info: for each id its "id", "category_id", "isthing", and perhaps "score" and
                "iscrowd"; if None, an id is category * metadata.label_divisor + number, -1 nothing.
        """
        panoptic_seg = to_numpy(panoptic_seg)
        ids, areas = np.unique(panoptic_seg, return_counts=True)
        area_of = dict(zip(ids.tolist(), areas.tolist()))
        if segments_info is None:
            divisor = self.metadata.label_divisor
            segments_info = [
                {"id": number, "category_id": number // divisor}
                for number in area_of
                if number != -1
            ]
        segments = [segment for segment in segments_info if segment["id"] in area_of]
        segments.sort(key=lambda segment: -area_of[segment["id"]])
        if self._instance_mode == ColorMode.IMAGE_BW:
            keep = np.isin(panoptic_seg, [segment["id"] for segment in segments])
            self.output.reset_image(grayscale(self.img, keep))

        for segment in segments:
            label = segment["category_id"]
            if not self._is_thing(segment):
                self.draw_binary_mask(
                    panoptic_seg == segment["id"],
                    color=self._stuff_color(label),
                    edge_color=_OFF_WHITE,
                    text=self.metadata.stuff_classes[label],
                    alpha=alpha,
                    area_threshold=area_threshold,
                )
        things = [segment for segment in segments if self._is_thing(segment)]
        if not things:
            return self.output
        classes = [segment["category_id"] for segment in things]
        scores = [segment["score"] for segment in things if "score" in segment]
        colors = self.metadata.get("thing_colors")
        return self.overlay_instances(
            masks=[panoptic_seg == segment["id"] for segment in things],
            labels=_create_text_labels(
                classes,
                scores if len(scores) == len(things) else None,
                self.metadata.get("thing_classes"),
                [segment.get("iscrowd", 0) for segment in things],
            ),
            assigned_colors=[jitter(_to_unit(colors[c])) for c in classes] if colors else None,
            alpha=alpha,
        )

    draw_panoptic_seg_predictions = draw_panoptic_seg

    def _is_thing(self, segment: dict) -> bool:
        if "isthing" in segment:
            return bool(segment["isthing"])
        things = self.metadata.thing_dataset_id_to_contiguous_id
        return segment["category_id"] in things.values()

    # --------------------------------------------------------------------------------- data
    def draw_dataset_dict(self, dic: dict) -> VisImage:
        """What a dataset says of its image.

        Drawn is what is there: "annotations" with "segmentation" (polygons, RLE or bitmap),
        "keypoints", "bbox" and "bbox_mode"; "sem_seg" or "sem_seg_file_name"; "pan_seg" or
        "pan_seg_file_name" (RGB, COCO panoptic format) with "segments_info".
        """
        annotations = dic.get("annotations")
        if annotations:
            self._draw_annotations(annotations)
        sem_seg = dic.get("sem_seg")
        if sem_seg is None and "sem_seg_file_name" in dic:
            sem_seg = _read_image(dic["sem_seg_file_name"])
        if sem_seg is not None:
            self.draw_sem_seg(sem_seg, area_threshold=0, alpha=0.5)
        pan_seg = dic.get("pan_seg")
        if pan_seg is None and "pan_seg_file_name" in dic:
            rgb = _read_image(dic["pan_seg_file_name"], "RGB").astype(np.int64)
            pan_seg = rgb @ np.array([1, 256, 256**2])
        if pan_seg is not None:
            self.draw_panoptic_seg(pan_seg, dic["segments_info"], area_threshold=0, alpha=0.5)
        return self.output

    def _draw_annotations(self, annotations: list[dict]) -> None:
        def column(name: str) -> list | None:
            return [one[name] for one in annotations] if name in annotations[0] else None

        boxes, keypoints, classes = column("bbox"), column("keypoints"), column("category_id")
        if boxes is not None:
            boxes = np.array(
                [
                    box if len(box) == 5 else BoxMode.convert(box, mode, BoxMode.XYXY_ABS)
                    for box, mode in zip(boxes, column("bbox_mode"))
                ]
            )
        if keypoints is not None:
            keypoints = np.array(keypoints).reshape(len(annotations), -1, 3)
        self.overlay_instances(
            labels=_create_text_labels(
                classes,
                None,
                self.metadata.get("thing_classes"),
                [one.get("iscrowd", 0) for one in annotations],
            ),
            boxes=boxes,
            masks=column("segmentation"),
            keypoints=keypoints,
            assigned_colors=self._class_colors(classes, jittering=True),
        )

    # ------------------------------------------------------------------------------ objects
    def overlay_instances(
        self,
        *,
        boxes: Boxes | ArrayLike | None = None,
        labels: list[str] | None = None,
        masks: BitMasks | PolygonMasks | ArrayLike | None = None,
        keypoints: ArrayLike | None = None,
        assigned_colors: list | None = None,
        alpha: float = 0.5,
    ) -> VisImage:
        """N objects, the large ones first.

        Args:
            boxes: Boxes or (N,4); with 5 columns they are rotated, and nothing else is drawn.
            labels: N texts.
            masks: BitMasks, PolygonMasks, (N,H,W), or a list of what GenericMask takes.
            keypoints: (N,K,3): x, y, probability.
            assigned_colors: N colours; random, if None.
        """
        boxes = None if boxes is None else self._convert_boxes(boxes)
        masks = None if masks is None else self._convert_masks(masks)
        keypoints = None if keypoints is None else to_numpy(getattr(keypoints, "tensor", keypoints))
        counts = {len(part) for part in (boxes, masks, keypoints, labels) if part is not None}
        if not counts or counts == {0}:
            return self.output
        assert len(counts) == 1, f"different numbers of boxes, masks, keypoints, labels: {counts}"
        (count,) = counts
        if boxes is not None and boxes.shape[1] == 5:
            return self.overlay_rotated_instances(boxes, labels, assigned_colors)
        colors = assigned_colors
        if colors is None:
            colors = [random_color(rgb=True, maximum=1) for _ in range(count)]

        areas = np.zeros(count)
        if boxes is not None:
            areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
        elif masks is not None:
            areas = np.array([mask.area() for mask in masks])
        order = np.argsort(-areas, kind="stable").tolist()
        for i in order:
            if masks is not None:
                self.draw_binary_mask(masks[i].mask, colors[i], alpha=alpha, area_threshold=0)
            if boxes is not None:
                self.draw_box(boxes[i], edge_color=colors[i])
            if keypoints is not None:
                self.draw_and_connect_keypoints(keypoints[i])
        for i in order if labels is not None else []:  # no shape covers a label
            box = boxes[i] if boxes is not None and areas[i] > 0 else None
            mask = masks[i] if masks is not None else None
            self._draw_label(labels[i], box, mask, colors[i])
        return self.output

    def _draw_label(
        self, label: str, box: np.ndarray | None, mask: GenericMask | None, color: Any
    ) -> None:
        """At the upper left of the box, below it if it is small; else in the middle of the mask."""
        if box is not None:
            x0, y0, x1, y1 = box.tolist()
            position, alignment, height = (x0, y0), "left", y1 - y0
            if self._is_small(x1 - x0, y1 - y0):
                has_room = y1 + self._text_height() < self.output.height
                position = (x0, y1) if has_room else (x1, y0)
        elif mask is not None and mask.mask.any():
            x, y, _ = inner_point(mask.mask)
            height = np.ptp(mask.bbox()[1::2])
            size = self._label_size(height)
            position = (x, y - self._text_height() * size / self._default_font_size / 2)
            alignment = "center"
        else:
            return
        self.draw_text(
            label,
            position,
            color=color,
            horizontal_alignment=alignment,
            font_size=self._label_size(height),
        )

    def overlay_rotated_instances(
        self,
        boxes: Boxes | ArrayLike | None = None,
        labels: list[str] | None = None,
        assigned_colors: list | None = None,
    ) -> VisImage:
        """Rotated boxes (N,5), see `draw_rotated_box_with_label`; the large ones first."""
        boxes = np.zeros((0, 5)) if boxes is None else self._convert_boxes(boxes)
        colors = assigned_colors
        if colors is None:
            colors = [random_color(rgb=True, maximum=1) for _ in boxes]
        for i in np.argsort(-boxes[:, 2] * boxes[:, 3], kind="stable").tolist():
            label = None if labels is None else labels[i]
            self.draw_rotated_box_with_label(boxes[i], edge_color=colors[i], label=label)
        return self.output

    def draw_and_connect_keypoints(self, keypoints: Any) -> VisImage:
        """The visible of K keypoints (K,3), and the lines of keypoint_connection_rules."""
        names = self.metadata.get("keypoint_names") or []
        visible = {}
        for index, (x, y, probability) in enumerate(to_numpy(keypoints).tolist()):
            if probability > self.keypoint_threshold:
                self.draw_circle((x, y), color=_RED)
                if index < len(names):
                    visible[names[index]] = (x, y)
        for first, second, color in self.metadata.get("keypoint_connection_rules") or []:
            if first in visible and second in visible:
                self.draw_line(*zip(visible[first], visible[second]), color=_to_unit(color))
        return self.output

    def _convert_boxes(self, boxes: Boxes | ArrayLike) -> np.ndarray:
        """Boxes, or an array or tensor (N,4|5)."""
        boxes = to_numpy(getattr(boxes, "tensor", boxes))
        return boxes if len(boxes) else boxes.reshape(0, 4)

    def _convert_masks(self, masks: BitMasks | PolygonMasks | ArrayLike) -> list[GenericMask]:
        if isinstance(masks, PolygonMasks):
            masks = masks.polygons
        masks = getattr(masks, "tensor", masks)
        if isinstance(masks, (torch.Tensor, np.ndarray)):
            masks = to_numpy(masks)
        size = self.output.height, self.output.width
        return [
            mask if isinstance(mask, GenericMask) else GenericMask(mask, *size) for mask in masks
        ]


def _to_unit(color: Any) -> tuple[float, ...]:
    """A colour from 0..255 to 0..1."""
    return tuple(value / 255 for value in color)


def _read_image(path: str, mode: str | None = None) -> np.ndarray:
    with PathManager.open(path, "rb") as f:
        image = Image.open(f)
        return np.asarray(image.convert(mode) if mode else image)


def _create_text_labels(
    classes: list[int] | None,
    scores: Iterable[float] | None = None,
    class_names: list[str] | None = None,
    is_crowd: list[int] | None = None,
) -> list[str] | None:
    """What is written at each object: name, score in percent, whether it is a crowd."""
    labels = None
    if classes is not None:
        labels = [class_names[c] if class_names else str(c) for c in classes]
    if scores is not None:
        percents = [f"{100 * float(score):.0f}%" for score in scores]
        labels = [f"{a} {b}" for a, b in zip(labels, percents)] if labels else percents
    if labels is not None and is_crowd is not None:
        labels = [label + ("|crowd" if crowd else "") for label, crowd in zip(labels, is_crowd)]
    return labels
