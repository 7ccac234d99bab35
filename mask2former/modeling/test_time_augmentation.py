"""Test-time augmentation: one result from several sizes of an image and their mirror images.

Semantic scores of the views are averaged, as in the official code. A query of one view need not
mean the same object as that of another, so for panoptic and instance segmentation the queries of
each view are first matched to those of one view; see MatchedQueries.

V views, Q queries, K classes, H W the output, h w the stride-4 grid of a view.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.data.detection_utils import read_image
from detectron2.data.transforms import HFlipTransform, NoOpTransform, ResizeTransform
from detectron2.modeling import DatasetMapperTTA
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mask2former.device import full_precision
from mask2former.modeling.criterion.matcher import assign
from mask2former.modeling.maskformer_model import MaskFormer, Prediction


class SemanticSegmentorWithTTA(nn.Module):
    """A model whose results are those of all views of TEST.AUG together; called as the model is.

    Views go through the model one at a time, so that it needs the memory of one.
    """

    def __init__(
        self,
        cfg: CfgNode,
        model: nn.Module,
        tta_mapper: Callable[[dict], list[dict]] | None = None,
    ):
        """
        Args:
            model: a MaskFormer, which gives all that is switched on, or another model with
                "sem_seg" in its results, which gives only that.
            tta_mapper: from an input to views of it, with their "transforms" (resizing and
                mirroring) from the original; None: detectron2's, of TEST.AUG.
        """
        super().__init__()
        self.model = model.module if isinstance(model, DistributedDataParallel) else model
        self.tta_mapper = tta_mapper or DatasetMapperTTA(cfg)
        self.image_format = cfg.INPUT.FORMAT
        self.train(self.model.training)

    @torch.no_grad()
    def forward(self, batched_inputs: list[dict]) -> list[dict]:
        """
        Args:
            batched_inputs: of each image "image" (3,H,W) or "file_name", and optionally "height"
                and "width" of the output.
        Returns:
            of each image what the model returns.
        """
        return [self._infer(self._complete(sample)) for sample in batched_inputs]

    def _complete(self, sample: dict) -> dict:
        if "image" not in sample:
            image = read_image(sample["file_name"], self.image_format)
            image = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
            sample = {**sample, "image": image}
        height, width = sample["image"].shape[1:]
        return {"height": height, "width": width, **sample}

    def _infer(self, sample: dict) -> dict:
        output_size = sample["height"], sample["width"]
        is_mask_former = isinstance(self.model, MaskFormer)
        tasks = self.model.tasks if is_mask_former else ("sem_seg",)
        of_queries = [task for task in tasks if task != "sem_seg"]
        scores, queries = _Mean(), None
        for view, is_mirrored in self._views(sample):
            if is_mask_former:
                (prediction,) = self.model.predict([view])
            if of_queries:
                queries = queries or MatchedQueries(prediction)
                queries.add(prediction, is_mirrored)
            if "sem_seg" in tasks:
                if is_mask_former:
                    result = self.model.infer(prediction, output_size, ["sem_seg"])
                else:
                    (result,) = self.model([view])
                scores.add(result["sem_seg"].flip(2) if is_mirrored else result["sem_seg"])
        results = {"sem_seg": scores.value()} if "sem_seg" in tasks else {}
        if of_queries:
            results |= self.model.infer(queries.mean(), output_size, of_queries)
        return results

    def _views(self, sample: dict) -> Iterator[tuple[dict, bool]]:
        """Each view and whether it is mirrored; a largest one first, whose grid is the finest."""
        views = self.tta_mapper(sample)
        for view in sorted(views, key=lambda view: -view["image"].numel()):
            transforms = view.pop("transforms").transforms
            for transform in transforms:
                if not isinstance(transform, (HFlipTransform, ResizeTransform, NoOpTransform)):
                    raise ValueError(
                        f"tta_mapper: a view was made by {type(transform).__name__}, which cannot "
                        "be undone in its result; resize and mirror only"
                    )
            yield view, sum(isinstance(t, HFlipTransform) for t in transforms) % 2 == 1


class _Mean:
    """A running mean of tensors of one shape, on the device of the first."""

    def __init__(self) -> None:
        self.total, self.count = None, 0

    def add(self, values: Tensor) -> None:
        self.total = values if self.total is None else self.total + values.to(self.total.device)
        self.count += 1

    def value(self) -> Tensor:
        return self.total / self.count


class MatchedQueries:
    """The mean of what the queries of several views say of the same objects.

    The first view is the reference. Each query of another view is matched to one of its queries,
    one to one, so that the sum of their likeness is the largest: that of their class probabilities
    plus that of their mask probabilities, once all masks lie on the reference's stride-4 grid
    (mirrored back). Then a query has the means of the class probabilities and of the mask logits
    of those matched to it. (To weigh the masks by whether a view sees an object changes nothing
    that could be measured.)
    """

    def __init__(self, reference: Prediction):
        self.reference = reference
        self.num_views = 0
        self.class_sum = self.mask_sum = 0.0

    def add(self, prediction: Prediction, is_mirrored: bool) -> None:
        """Another view, or as the first one the reference itself."""
        with full_precision(prediction.mask_logits.device.type):
            probabilities = prediction.class_logits.float().softmax(-1)  # (Q,K+1)
            masks = on_grid_of(self.reference, prediction, is_mirrored)  # (Q,h,w)
            if self.num_views == 0:
                self.classes, self.masks = probabilities, self._inside(masks)
            else:
                likeness = pairwise_likeness(probabilities, self.classes)
                likeness += pairwise_likeness(self._inside(masks), self.masks)
                order, _ = assign(-likeness.cpu().numpy())
                order = torch.from_numpy(order).to(masks.device)
                probabilities, masks = probabilities[order], masks[order]
            self.class_sum = self.class_sum + probabilities
            self.mask_sum = self.mask_sum + masks
            self.num_views += 1

    def _inside(self, masks: Tensor) -> Tensor:
        """Mask probabilities at the cells that show the image: (Q,h,w) -> (Q,P)"""
        rows, columns = (
            math.ceil(cells * size / padded)
            for cells, size, padded in zip(
                masks.shape[1:], self.reference.image_size, self.reference.padded_size
            )
        )
        return masks[:, :rows, :columns].sigmoid().flatten(1)

    def mean(self) -> Prediction:
        """In the frame of the reference."""
        return self.reference._replace(
            class_logits=(self.class_sum / self.num_views).log(),
            mask_logits=self.mask_sum / self.num_views,
        )


def pairwise_likeness(a: Tensor, b: Tensor) -> Tensor:
    """V-Net's dice of every pair, 1 for equal ones alone: (Q,D), (Q,D) -> (Q,Q)"""
    total = a.square().sum(1)[:, None] + b.square().sum(1)
    return 2 * (a @ b.T) / total.clamp(min=1e-6)


def on_grid_of(reference: Prediction, prediction: Prediction, is_mirrored: bool) -> Tensor:
    """The mask logits of a view where the cells of `reference` lie in its image.

    Shapes: Q masks (h',w') of `prediction` -> (Q,h,w) float32
    """
    masks = prediction.mask_logits.float()
    sizes = [(p.padded_size, p.image_size, p.mask_logits.shape) for p in (reference, prediction)]
    if sizes[0] == sizes[1] and not is_mirrored:
        return masks

    def positions(axis: int, mirror: bool) -> Tensor:  # in the view's padded image, from -1 to 1
        cells = reference.mask_logits.shape[1 + axis]
        padded, size = reference.padded_size[axis], reference.image_size[axis]
        centres = torch.arange(cells, device=masks.device) + 0.5
        share = centres * (padded / cells / size)  # of the image, whose end is at 1
        share = 1 - share if mirror else share
        return 2 * share * (prediction.image_size[axis] / prediction.padded_size[axis]) - 1

    y, x = torch.meshgrid(positions(0, False), positions(1, is_mirrored), indexing="ij")
    grid = torch.stack((x, y), dim=-1)[None]  # (1,h,w,2)
    return F.grid_sample(masks[None], grid, padding_mode="border", align_corners=False)[0]
