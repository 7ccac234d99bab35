"""How a picture is transformed: drawn as a whole, then worked out for what will be seen of it.

H0 W0 size of the file, h w of what the transforms leave of it (the content), H W of the frame: the
content, and padding right of it and below
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from detectron2.data import transforms as T
from detectron2.projects.point_rend import ColorAugSSDTransform
from PIL import Image

from mask2former.data.augmentation import CropByClassArea, OneOf, RandomCrop, ResizeScale
from mask2former.data.colour import PhotometricDistortion
from mask2former.data.resizing import (
    Rule,
    Size,
    Window,
    nearest,
    num_rows_seen,
    resize_part,
)
from mask2former.data.sample_files import PictureFile
from mask2former.layers.frames import IMAGE_PADDING

# Pillow's with 8 bits a channel, or (H0,W0,C) numbers of any type.
Picture = Image.Image | np.ndarray
Source = PictureFile | Picture
# Gives classes (h,w), whole numbers, for rows (h,) and columns (w,) of the file.
ClassMap = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Geometry:
    """What was drawn for one picture; it does to each part of a sample what that part needs."""

    def __init__(self, transforms: Sequence[T.Transform], source: Size):
        """
        Args:
            transforms: of the types in `_STEPS`; padding, if any, comes last.
            source: (H0, W0).
        """
        self.transforms = T.TransformList(transforms)
        self.source = source
        self.steps: list[_Step] = []
        self.size = source  # (h, w)
        padding = 0, 0
        for transform in self.transforms.transforms:
            if isinstance(transform, T.PadTransform):
                padding = transform.y1, transform.x1
            elif not isinstance(transform, T.NoOpTransform):
                self._append(_STEPS[type(transform)](transform, self.size))
        self.frame = self.size[0] + padding[0], self.size[1] + padding[1]  # (H, W)

    def _append(self, step: "_Step") -> None:
        self.size = step.size
        if self.steps and isinstance(step, _Part) and isinstance(self.steps[-1], _Part):
            resized = self.steps[-1]
            if resized.window.size == resized.resized and step.resized == step.source:
                step = replace(resized, window=step.window)
                self.steps.pop()
        self.steps.append(step)

    def image(self, source: Source) -> np.ndarray:
        """The content (h,w,C). What is not uint8 takes the transforms one by one."""
        picture = source.read(self._num_rows()) if isinstance(source, PictureFile) else source
        if isinstance(picture, np.ndarray) and picture.dtype != np.uint8:
            moved = self.transforms.apply_image(picture)
            return _as_array(moved[: self.size[0], : self.size[1]])
        picture = _as_pillow(picture)
        for step in self.steps:
            picture = step.image(picture)
        return _as_array(picture)

    def _num_rows(self) -> int:
        """How many of the file's first rows are seen."""
        for step in self.steps:
            if isinstance(step, _Part):
                return num_rows_seen(step.source, step.resized, step.window, step.interp)
            if isinstance(step, _Flip) and step.axis == 0:
                break
        return self.source[0]

    def labels(self, label: np.ndarray, rule: Rule) -> np.ndarray:
        """(H0,W0,...) of any type -> (h,w,...), by the nearest neighbour."""
        return pick(label)(*self.origins(rule))

    def origins(self, rule: Rule) -> tuple[np.ndarray, np.ndarray]:
        """Which row of the file each row (h,) shows, and which column each column (w,)."""
        axes = [np.arange(length) for length in self.source]
        for step in self.steps:
            axes = step.origins(axes, rule)
        return tuple(axes)

    def coords(self, xy: np.ndarray) -> np.ndarray:
        """(P,2) as x, y -> (P,2), also of what lies outside the content then."""
        return self.transforms.apply_coords(xy.astype(np.float64))

    def pad_frame(self, divisor: int) -> None:
        """Make the frame a multiple of `divisor`, if that is positive."""
        if divisor > 0:
            height, width = self.frame
            self.frame = height + -height % divisor, width + -width % divisor


class AppliedGeometry(Geometry):
    """Of augmentations that look at pixels, or of which nothing is known.

    The picture was transformed while they were drawn; labels take the transforms one by one.
    """

    def __init__(self, transforms: T.TransformList, source: Size, image: np.ndarray):
        self.transforms = transforms
        self.source = source
        self.size = self.frame = image.shape[:2]
        self._image = image
        self._of_ids = T.TransformList([_padding_with_nothing(t) for t in transforms.transforms])

    def image(self, source: Source) -> np.ndarray:
        return _as_array(self._image)

    def labels(self, label: np.ndarray, rule: Rule) -> np.ndarray:
        if rule == "torch":
            moved = self.transforms.apply_segmentation(label.astype(np.float64))
        elif label.dtype.itemsize == 1:
            moved = self._of_ids.apply_segmentation(label.view(np.uint8))
        else:  # the four bytes of a number are four channels for Pillow
            channels = np.ascontiguousarray(label, np.int32)[..., None].view(np.uint8)
            moved = np.ascontiguousarray(self._of_ids.apply_segmentation(channels))
            moved = moved.view(np.int32)[..., 0]
        return moved.astype(label.dtype)


def _padding_with_nothing(transform: T.Transform) -> T.Transform:
    """Its padding is 0, the id of no segment and no pixel of a mask, whatever it is of classes."""
    if not isinstance(transform, T.PadTransform):
        return transform
    t = transform
    return T.PadTransform(t.x0, t.y0, t.x1, t.y1, t.orig_w, t.orig_h, t.pad_value, 0)


def draw(
    augmentations: Sequence[T.Augmentation | T.Transform],
    source: Source,
    class_map: np.ndarray | ClassMap | None = None,
) -> Geometry:
    """Draw what happens to a picture: detectron2's random numbers, in detectron2's order.

    Args:
        class_map: (H0,W0) whole numbers, or what gives them, for a crop that looks at classes.
    """
    size = size_of(source)
    classes = pick(class_map) if isinstance(class_map, np.ndarray) else class_map
    last = len(augmentations) - 1
    if all(_asks_for_sizes(a, is_last=i == last) for i, a in enumerate(augmentations)):
        sizes = _Sizes(size, classes)
        sizes.apply_augmentations(augmentations)
        return Geometry(sizes.transforms, size)
    if classes is not None:  # as double, because detectron2 resizes uint8 by Pillow's rule
        classes = classes(*map(np.arange, size)).astype(np.float64)
    picture = source.read() if isinstance(source, PictureFile) else source
    augmented = T.AugInput(_as_array(picture), sem_seg=classes)
    transforms = augmented.apply_augmentations(augmentations)
    return AppliedGeometry(transforms, size, augmented.image)


def size_of(source: Source) -> Size:
    """(H0, W0)"""
    if isinstance(source, PictureFile):
        return source.size
    return source.size[::-1] if isinstance(source, Image.Image) else source.shape[:2]


class _Sizes(T.AugInput):
    """What augmentations look at: a picture that has a size but takes no memory, and classes."""

    def __init__(self, source: Size, classes: ClassMap | None):
        self.source = source
        self.classes = classes
        self.boxes = None
        self.transforms: list[T.Transform] = []

    @property
    def image(self) -> np.ndarray:
        return np.broadcast_to(np.uint8(0), (*Geometry(self.transforms, self.source).frame, 3))

    @property
    def sem_seg(self) -> "_Classes | None":
        return self.classes and _Classes(self.classes, Geometry(self.transforms, self.source))

    def transform(self, tfm: T.Transform) -> None:
        self.transforms += T.TransformList([tfm]).transforms


class _Classes:
    """The classes (h,w) of a transformed picture, worked out where a crop asks for them."""

    def __init__(self, classes: ClassMap, geometry: Geometry):
        self.classes = classes
        self.geometry = geometry
        self.shape = geometry.size

    def __getitem__(self, window: tuple[slice, slice]) -> np.ndarray:
        rows, columns = self.geometry.origins("torch")
        return self.classes(rows[window[0]], columns[window[1]])


@dataclass(frozen=True)
class _Part:
    """A part of a picture, resized or not."""

    source: Size
    resized: Size
    window: Window  # in what is resized
    interp: int = Image.Resampling.BILINEAR

    @property
    def size(self) -> Size:
        return self.window.size

    def image(self, picture: Picture) -> Image.Image:
        return resize_part(_as_pillow(picture), self.resized, self.window, self.interp)

    def origins(self, axes: list[np.ndarray], rule: Rule) -> list[np.ndarray]:
        windows = zip(self.window[:2], self.window.size)
        return [
            axes[i][nearest(self.source, self.resized, i, rule)[start : start + length]]
            for i, (start, length) in enumerate(windows)
        ]


@dataclass(frozen=True)
class _Flip:
    axis: int
    size: Size

    def image(self, picture: Picture) -> Picture:
        if isinstance(picture, np.ndarray):
            return cv2.flip(picture, self.axis)  # NumPy's copy takes 50 times as long
        methods = Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.FLIP_LEFT_RIGHT
        return picture.transpose(methods[self.axis])

    def origins(self, axes: list[np.ndarray], rule: Rule) -> list[np.ndarray]:
        return [values[::-1] if axis == self.axis else values for axis, values in enumerate(axes)]


@dataclass(frozen=True)
class _Recolour:
    transform: T.Transform
    size: Size

    def image(self, picture: Picture) -> np.ndarray:
        return self.transform.apply_image(np.asarray(picture))

    def origins(self, axes: list[np.ndarray], rule: Rule) -> list[np.ndarray]:
        return axes


_Step = _Part | _Flip | _Recolour


def _resize(transform: T.ResizeTransform, source: Size) -> _Part:
    resized = int(transform.new_h), int(transform.new_w)
    return _Part(source, resized, Window(0, 0, *resized), transform.interp)


def _crop(transform: T.CropTransform, source: Size) -> _Part:
    top, left = int(transform.y0), int(transform.x0)
    # What reaches over the border is cut off, as by a slice.
    size = min(int(transform.h), source[0] - top), min(int(transform.w), source[1] - left)
    return _Part(source, source, Window(top, left, *size))


def _recolour(transform: T.Transform, source: Size) -> _Recolour:
    return _Recolour(transform, source)


_STEPS: dict[type[T.Transform], Callable[[T.Transform, Size], _Step]] = {
    T.ResizeTransform: _resize,
    T.CropTransform: _crop,
    T.VFlipTransform: lambda transform, source: _Flip(0, source),
    T.HFlipTransform: lambda transform, source: _Flip(1, source),
    PhotometricDistortion: _recolour,
    ColorAugSSDTransform: _recolour,
}
# Of these types exactly: what derives from them may look at pixels.
_ASKING_FOR_SIZES = {
    *_STEPS,
    T.NoOpTransform,
    T.RandomCrop,
    T.RandomFlip,
    T.Resize,
    T.ResizeScale,
    T.ResizeShortestEdge,
    CropByClassArea,
    RandomCrop,
    ResizeScale,
}


def _asks_for_sizes(augmentation: T.Augmentation | T.Transform, is_last: bool) -> bool:
    """Whether it needs no pixels to draw, and draws only what a `Geometry` can hold."""
    if isinstance(augmentation, OneOf):
        parts = *augmentation.first, *augmentation.second
        return all(_asks_for_sizes(part, is_last=False) for part in parts)
    if type(augmentation) is T.FixedSizeCrop:
        is_frame = is_last and augmentation.pad_value == IMAGE_PADDING
        return not augmentation.pad or is_frame
    return type(augmentation) in _ASKING_FOR_SIZES


def pick(label: np.ndarray) -> ClassMap:
    """What gives the values (h,w,...) of a map (H0,W0,...) for rows (h,) and columns (w,)."""
    return lambda rows, columns: label.take(rows, axis=0).take(columns, axis=1)


def _as_pillow(picture: Picture) -> Image.Image:
    if isinstance(picture, Image.Image):
        return picture
    return Image.fromarray(picture[..., 0] if picture.shape[2:] == (1,) else picture)


def _as_array(picture: Picture) -> np.ndarray:
    """(h,w,C), which can be written to."""
    array = np.require(picture, requirements=("C", "W"))
    return array[..., None] if array.ndim == 2 else array
