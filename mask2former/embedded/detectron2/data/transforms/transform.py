"""Deterministic transforms that fvcore lacks, and rotated boxes for those that it has.

Images are (H, W) or (H, W, C); coordinates are (N, 2) as (x, y) in pixels, where (0, 0) is the
outer corner of the first pixel.
"""

import numpy as np
import torch
import torch.nn.functional as F
from fvcore.transforms.transform import HFlipTransform, NoOpTransform, Transform
from PIL import Image

__all__ = ["ResizeTransform"]

_TORCH_MODE = {
    Image.NEAREST: "nearest",
    Image.BILINEAR: "bilinear",
    Image.BICUBIC: "bicubic",
}


class ResizeTransform(Transform):
    """Resize from (h, w) to (new_h, new_w).

    uint8 images go through Pillow, which smooths when it shrinks; other types go through
    `torch.nn.functional.interpolate`, which does not, and has no other modes than
    nearest, bilinear and bicubic.

    Args:
        h, w: size that the input must have.
        new_h, new_w: size of the output.
        interp: a Pillow resampling constant; None means bilinear.
    """

    def __init__(self, h: int, w: int, new_h: int, new_w: int, interp: int | None = None) -> None:
        super().__init__()
        if interp is None:
            interp = Image.BILINEAR
        self._set_attributes(locals())

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        if img.shape[:2] != (self.h, self.w):
            raise ValueError(
                f"the image is {img.shape[0]}x{img.shape[1]}, but this resize was made for "
                f"{self.h}x{self.w}; make a new one from the image"
            )
        interp = self.interp if interp is None else interp
        resize = _resize_with_pillow if img.dtype == np.uint8 else _resize_with_torch
        return resize(img, self.new_h, self.new_w, interp)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        coords[:, 0] = coords[:, 0] * (self.new_w / self.w)
        coords[:, 1] = coords[:, 1] * (self.new_h / self.h)
        return coords

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return self.apply_image(segmentation, interp=Image.NEAREST)

    def inverse(self) -> "ResizeTransform":
        return ResizeTransform(self.new_h, self.new_w, self.h, self.w, self.interp)


def _resize_with_pillow(img: np.ndarray, new_h: int, new_w: int, interp: int) -> np.ndarray:
    # (H,W) | (H,W,1) | (H,W,3) | (H,W,4) -> same with new_h, new_w
    one_channel = img.ndim == 3 and img.shape[2] == 1
    picture = Image.fromarray(img[:, :, 0] if one_channel else img)
    resized = np.asarray(picture.resize((new_w, new_h), interp))
    return resized[:, :, None] if one_channel else resized


def _resize_with_torch(img: np.ndarray, new_h: int, new_w: int, interp: int) -> np.ndarray:
    # (H,W,*rest) -> (new_h,new_w,*rest)
    if not np.issubdtype(img.dtype, np.floating):
        raise TypeError(f"an image of type {img.dtype} cannot be resized; give uint8 or a float")
    if interp not in _TORCH_MODE:
        raise ValueError(
            f"interp={interp} for an image of type {img.dtype}; "
            f"use uint8, or one of nearest (0), bilinear (2), bicubic (3)"
        )
    mode = _TORCH_MODE[interp]
    rest = img.shape[2:]
    # a copy where strides are negative (a flipped view): torch takes none
    x = torch.from_numpy(np.ascontiguousarray(img)).reshape(1, *img.shape[:2], -1)
    x = x.permute(0, 3, 1, 2)
    align_corners = None if mode == "nearest" else False
    x = F.interpolate(x, (new_h, new_w), mode=mode, align_corners=align_corners)
    return x.permute(0, 2, 3, 1).reshape(new_h, new_w, *rest).numpy()


def _flip_rotated_box(transform: HFlipTransform, rotated_boxes: np.ndarray) -> np.ndarray:
    """(N, 5) as (x_center, y_center, width, height, degrees counter-clockwise), in place."""
    rotated_boxes[:, 0] = transform.width - rotated_boxes[:, 0]
    rotated_boxes[:, 4] = -rotated_boxes[:, 4]
    return rotated_boxes


def _resize_rotated_box(transform: ResizeTransform, rotated_boxes: np.ndarray) -> np.ndarray:
    """(N, 5), in place. Resizing shears a rotated box; its two edge lengths stay exact.

    The new angle is that of the scaled vertical edge.
    """
    scale_x = transform.new_w / transform.w
    scale_y = transform.new_h / transform.h
    angle = np.deg2rad(rotated_boxes[:, 4])
    cos, sin = np.cos(angle), np.sin(angle)
    rotated_boxes[:, 0] *= scale_x
    rotated_boxes[:, 1] *= scale_y
    rotated_boxes[:, 2] *= np.hypot(scale_x * cos, scale_y * sin)
    rotated_boxes[:, 3] *= np.hypot(scale_x * sin, scale_y * cos)
    rotated_boxes[:, 4] = np.rad2deg(np.arctan2(scale_x * sin, scale_y * cos))
    return rotated_boxes


HFlipTransform.register_type("rotated_box", _flip_rotated_box)
ResizeTransform.register_type("rotated_box", _resize_rotated_box)
NoOpTransform.register_type("rotated_box", lambda transform, rotated_boxes: rotated_boxes)
