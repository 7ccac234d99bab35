"""The single things that can be drawn onto an image: text, shapes, masks."""

from __future__ import annotations

from typing import Any

import cv2
import matplotlib.colors
import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Polygon, Rectangle
from matplotlib.text import Text

from detectron2.utils.colormap import random_color

from ._drawing import (
    GenericMask,
    VisImage,
    change_brightness,
    inner_point,
    rotated_corners,
    text_color,
    to_numpy,
)

LARGE_PART_AREA = 120000  # square pixels; a part of a mask this large has a label of its own


class Primitives:
    """Draws on `self.output`; every method returns it.

    Coordinates are pixels of the original image. A colour is whatever matplotlib takes: a name, or
    red, green and blue from 0 to 1.
    """

    output: VisImage
    _default_font_size: float

    def draw_text(
        self,
        text: str,
        position: tuple[float, float],
        *,
        font_size: float | None = None,
        color: Any = "g",
        horizontal_alignment: str = "center",
        rotation: float = 0,
    ) -> VisImage:
        """Write `text` with its top at `position`, moved into the image where it would leave it."""
        artist = self.output.ax.text(
            *position,
            text,
            size=(font_size or self._default_font_size) * self.output.scale,
            family="sans-serif",
            bbox={"facecolor": "black", "alpha": 0.75, "pad": 0.9, "edgecolor": "none"},
            verticalalignment="top",
            horizontalalignment=horizontal_alignment,
            color=text_color(color),
            rotation=rotation,
            zorder=10,
        )
        self._move_inside(artist)
        return self.output

    def _move_inside(self, artist: Text) -> None:
        canvas, scale = self.output.canvas, self.output.scale
        extent = artist.get_window_extent(canvas.get_renderer())  # y points up
        width, height = canvas.get_width_height()
        right = max(-extent.x0, 0) or min(width - extent.x1, 0)
        up = min(height - extent.y1, 0) or max(-extent.y0, 0)
        x, y = artist.get_position()
        artist.set_position((x + right / scale, y - up / scale))

    def draw_box(
        self, box_coord: Any, alpha: float = 0.5, edge_color: Any = "g", line_style: str = "-"
    ) -> VisImage:
        """The outline of a box (x0, y0, x1, y1)."""
        x0, y0, x1, y1 = box_coord
        self.output.ax.add_patch(
            Rectangle(
                (x0, y0),
                x1 - x0,
                y1 - y0,
                fill=False,
                edgecolor=edge_color,
                linewidth=self._line_width() * self.output.scale,
                alpha=alpha,
                linestyle=line_style,
            )
        )
        return self.output

    def draw_rotated_box_with_label(
        self,
        rotated_box: Any,
        alpha: float = 0.5,
        edge_color: Any = "g",
        line_style: str = "-",
        label: str | None = None,
    ) -> VisImage:
        """The outline of (centre x, centre y, width, height, counter-clockwise degrees)."""
        corners = rotated_corners(rotated_box)
        width = self._line_width() / (2 if self._is_small(*rotated_box[2:4]) else 1)
        for index, end in enumerate(corners):
            start = corners[index - 1]
            # The upper side is dashed, so that the picture says which one it is.
            style = "--" if index == 0 else line_style
            self.draw_line(*zip(start, end), edge_color, style, width)
        if label is not None:
            angle = (float(rotated_box[4]) + 90) % 180 - 90  # upright
            size = self._label_size(float(rotated_box[3]))
            self.draw_text(label, corners[0], color=edge_color, font_size=size, rotation=angle)
        return self.output

    def draw_circle(self, circle_coord: Any, color: Any, radius: float = 3) -> VisImage:
        self.output.ax.add_patch(Circle(circle_coord, radius=radius, fill=True, color=color))
        return self.output

    def draw_line(
        self,
        x_data: Any,
        y_data: Any,
        color: Any,
        linestyle: str = "-",
        linewidth: float | None = None,
    ) -> VisImage:
        """A line through the points (x, y)."""
        width = (linewidth or self._line_width()) * self.output.scale
        self.output.ax.add_line(
            Line2D(x_data, y_data, linewidth=width, color=color, linestyle=linestyle)
        )
        return self.output

    def draw_polygon(
        self, segment: Any, color: Any, edge_color: Any | None = None, alpha: float = 0.5
    ) -> VisImage:
        """A filled polygon with corners (N,2); its edge is a darker shade, unless given."""
        self._draw_outline(segment, color, edge_color, fill_alpha=alpha)
        return self.output

    def _draw_outline(self, corners: Any, color: Any, edge_color: Any, fill_alpha: float) -> None:
        edge = change_brightness(color, -0.5) if edge_color is None else edge_color
        self.output.ax.add_patch(
            Polygon(
                corners,
                closed=True,
                facecolor=(*matplotlib.colors.to_rgb(color), fill_alpha),
                edgecolor=matplotlib.colors.to_rgb(edge),
                linewidth=max(self._default_font_size * self.output.scale / 15, 1),
                joinstyle="round",
            )
        )

    def draw_binary_mask(
        self,
        binary_mask: np.ndarray,
        color: Any | None = None,
        *,
        edge_color: Any | None = None,
        text: str | None = None,
        alpha: float = 0.5,
        area_threshold: int | None = 10,
    ) -> VisImage:
        """A mask (H,W): filled, outlined and labelled.

        Args:
            color: random, if None.
            edge_color: a darker shade of `color`, if None.
            text: written into it.
            alpha: how much the filling covers, 0..1.
            area_threshold: parts with fewer pixels are left out; None is 0.
        """
        color = random_color(rgb=True, maximum=1) if color is None else color
        mask = (to_numpy(binary_mask) != 0).astype(np.uint8)
        mask = _without_small_parts(mask, area_threshold or 0)
        if not mask.any():
            return self.output
        self._fill(mask, color, alpha)
        shape = GenericMask(mask, *mask.shape)
        for polygon in shape.polygons:
            self._draw_outline(polygon.reshape(-1, 2), color, edge_color, fill_alpha=0)
        if text is not None:
            self._draw_text_in_mask(mask, text, color)
        return self.output

    def draw_soft_mask(
        self,
        soft_mask: np.ndarray,
        color: Any | None = None,
        *,
        text: str | None = None,
        alpha: float = 0.5,
    ) -> VisImage:
        """A mask (H,W) with values from 0 to 1, which scale `alpha`."""
        color = random_color(rgb=True, maximum=1) if color is None else color
        soft = to_numpy(soft_mask)
        self._fill(soft, color, alpha)
        if text is not None:
            self._draw_text_in_mask((soft > 0.5).astype(np.uint8), text, color)
        return self.output

    def _fill(self, mask: np.ndarray, color: Any, alpha: float) -> None:
        """Exactly the mask's pixels; only its box is drawn, because large images are slow."""
        x, y, width, height = cv2.boundingRect((mask > 0).astype(np.uint8))
        if width == 0:
            return
        part = mask[y : y + height, x : x + width]
        pixels = np.empty((height, width, 4), dtype=np.uint8)
        pixels[..., :3] = np.round(255 * np.array(matplotlib.colors.to_rgb(color)))
        pixels[..., 3] = np.round(255 * alpha * part)
        self.output.add_image(pixels, (x, y))

    def _draw_text_in_mask(self, mask: np.ndarray, text: str, color: Any) -> None:
        """In the middle of the mask's largest part, and of each one that is large anyway."""
        _, parts, stats, _ = cv2.connectedComponentsWithStats(mask, 8)
        areas = stats[1:, cv2.CC_STAT_AREA]  # 0 is the background
        for index, area in enumerate(areas):
            if index == areas.argmax() or area > LARGE_PART_AREA:
                x, y, radius = inner_point(parts == index + 1)
                height = self._text_height()
                fitting = np.clip(2 * radius / height, 0.7, 1.0)
                self.draw_text(
                    text,
                    (x, y - fitting * height / 2),
                    color=color,
                    font_size=fitting * self._default_font_size,
                )

    def _text_height(self) -> float:
        """Of the default font, in pixels of the original image."""
        return self._default_font_size * self.output.dpi / 72

    def _line_width(self) -> float:
        return max(self._default_font_size / 4, 1)

    def _is_small(self, width: float, height: float) -> bool:
        """Whether a label would cover most of a box."""
        return min(width, height) < 3 * self._text_height()

    def _label_size(self, height: float) -> float:
        """The font of an object's label grows with its height, within bounds."""
        relative = height / np.sqrt(self.output.height * self.output.width)
        return float(np.clip(0.6 + 4 * (relative - 0.02), 0.6, 1.0)) * self._default_font_size


def _without_small_parts(mask: np.ndarray, area_threshold: int) -> np.ndarray:
    if area_threshold <= 1:
        return mask
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask, 8)
    is_kept = stats[:, cv2.CC_STAT_AREA] >= area_threshold
    is_kept[0] = False  # the background
    return is_kept[parts].astype(np.uint8)
