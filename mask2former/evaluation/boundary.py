"""Boundary AP (Cheng et al. 2021): masks agree as much as the bands along their borders do."""

import cv2
import numpy as np
import pycocotools.mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mask2former.evaluation.coco_ap import Judge

BAND_WIDTH = 0.02  # of the image's diagonal, as the paper has it for COCO


class BoundaryEval(COCOeval):
    """COCOeval whose IoU is the smaller one of mask IoU and Boundary IoU."""

    def computeIoU(self, imgId: int, catId: int) -> np.ndarray | list:
        ious = super().computeIoU(imgId, catId)  # (D,G): D predictions by their scores, G objects
        touching = np.flatnonzero(np.any(ious, axis=-1))  # without pixels in common IoU stays 0
        if len(touching) == 0:
            return ious
        truth, found = self._gts[imgId, catId], self._dts[imgId, catId]
        order = np.argsort([-d["score"] for d in found], kind="mergesort")[touching]
        bands = [boundary(found[i]["segmentation"]) for i in order]
        true_bands = [boundary(a["segmentation"]) for a in truth]
        is_crowd = [int(a["iscrowd"]) for a in truth]
        of_bands = pycocotools.mask.iou(bands, true_bands, is_crowd)
        ious[touching] = np.minimum(ious[touching], of_bands)
        return ious


# The faster judge compares whole masks only.
BOUNDARY_JUDGE = Judge("pycocotools", COCO, BoundaryEval)


def boundary(rle: dict) -> dict:
    """The pixels of a mask up to BAND_WIDTH away from its outline, RLE to RLE.

    The image's border is an outline too.
    """
    mask = pycocotools.mask.decode(rle)  # (H,W)
    width = max(1, round(BAND_WIDTH * float(np.hypot(*mask.shape))))
    x, y, box_width, box_height = pycocotools.mask.toBbox(rle).astype(int)
    part = mask[y : y + box_height, x : x + box_width]  # nothing is outside
    if part.size:
        square = np.ones((3, 3), np.uint8)
        part -= cv2.erode(
            part, square, iterations=width, borderType=cv2.BORDER_CONSTANT, borderValue=0
        )
    return pycocotools.mask.encode(mask)
