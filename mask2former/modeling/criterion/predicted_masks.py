"""The masks that a training step predicts, of which losses need few: those of matched queries.

D predictions (one a decoder layer), d some of them, B batch, Q queries, C channels, M matched pairs
of the batch, P points, H W the masks' grid. All D x B x Q masks would be the largest tensor of a
step, and so would be their gradient; so no method gives them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from mask2former.layers.point_sampling import point_sample


class PredictedMasks(Protocol):
    """Mask logits; halves come as float32."""

    dtype: torch.dtype
    size: tuple[int, int]  # H and W
    num_queries: int
    numbers_a_point: int  # that are computed to sample all queries at a point

    def of_image(self, some: slice, image: int) -> Tensor:
        """All masks of one image in some predictions: (d,Q,H,W)"""

    def at_points(self, some: slice, image: int, points: Tensor) -> Tensor:
        """All masks of one image, each prediction at its points: (d,P,2) -> (d,Q,P)"""

    def of_queries(self, some: slice, slots: Tensor, num_matched: Sequence[int]) -> Tensor:
        """The masks of matched queries in some predictions.

        Args:
            slots: the queries, counted through the batch.
            num_matched: how many of them are each image's, in whose order they are.
        Shapes: (D,M) -> (d,M,H,W)
        """


def predicted_masks(predictions: Sequence[dict[str, Tensor]]) -> PredictedMasks:
    """From "mask_embed" and "pixel_feature" where a decoder gives them, else from "pred_masks"."""
    if not {"mask_embed", "pixel_feature"} <= predictions[0].keys():
        return GivenMasks([p["pred_masks"] for p in predictions])
    embeddings = torch.stack([p["mask_embed"] for p in predictions])
    pixel_feature = without_halves(predictions[0]["pixel_feature"])
    return MaskProducts(without_halves(embeddings), pixel_feature.unbind())


def without_halves(x: Tensor) -> Tensor:
    """In float32, or as it is in a wider type."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


@dataclass(frozen=True)
class GivenMasks:
    """Masks that somebody has already made."""

    logits: Sequence[Tensor]  # D x (B,Q,H,W)

    @property
    def dtype(self) -> torch.dtype:
        return torch.promote_types(self.logits[0].dtype, torch.float32)

    @property
    def size(self) -> tuple[int, int]:
        return tuple(self.logits[0].shape[-2:])

    @property
    def num_queries(self) -> int:
        return self.logits[0].shape[1]

    @property
    def numbers_a_point(self) -> int:
        return self.num_queries

    def of_image(self, some: slice, image: int) -> Tensor:
        return without_halves(torch.stack([logits[image] for logits in self.logits[some]]))

    def at_points(self, some: slice, image: int, points: Tensor) -> Tensor:
        return torch.cat(
            [
                point_sample(logits[image, None], at[None])
                for logits, at in zip(self.logits[some], points)
            ]
        )

    def of_queries(self, some: slice, slots: Tensor, num_matched: Sequence[int]) -> Tensor:
        matched = [
            logits.flatten(0, 1).index_select(0, queries)
            for logits, queries in zip(self.logits[some], slots[some])
        ]
        return without_halves(torch.stack(matched))


@dataclass(frozen=True)
class MaskProducts:
    """Products of the queries' embeddings and the pixels' (paper, sec. 3.1), made where asked for.

    To sample the pixels' embeddings and multiply then is the same as the other way round.
    """

    embeddings: Tensor  # (D,B,Q,C)
    # By image, so that autograd puts the images' gradients together once, not for each slice.
    pixel_features: Sequence[Tensor]  # B x (C,H,W)

    @property
    def dtype(self) -> torch.dtype:
        return self.embeddings.dtype

    @property
    def size(self) -> tuple[int, int]:
        return tuple(self.pixel_features[0].shape[-2:])

    @property
    def num_queries(self) -> int:
        return self.embeddings.shape[2]

    @property
    def numbers_a_point(self) -> int:
        return self.embeddings.shape[2] + self.embeddings.shape[3]

    def of_image(self, some: slice, image: int) -> Tensor:
        return product(self.embeddings[some, image], self.pixel_features[image])

    def at_points(self, some: slice, image: int, points: Tensor) -> Tensor:
        feature = point_sample(self.pixel_features[image][None], points.flatten(0, 1)[None])
        feature = feature.view(-1, *points.shape[:2]).transpose(0, 1)  # (d,C,P)
        return self.embeddings[some, image] @ feature

    def of_queries(self, some: slice, slots: Tensor, num_matched: Sequence[int]) -> Tensor:
        embeddings, slots = self.embeddings[some].flatten(1, 2), slots[some]
        matched = embeddings.gather(1, slots[..., None].expand(-1, -1, embeddings.shape[2]))
        masks = map(product, matched.split(num_matched, dim=1), self.pixel_features)
        return torch.cat([*masks], dim=1)


def product(embeddings: Tensor, pixel_feature: Tensor) -> Tensor:
    """(d,M,C), (C,H,W) -> (d,M,H,W)"""
    masks = embeddings.flatten(0, 1) @ pixel_feature.flatten(1)
    return masks.view(*embeddings.shape[:2], *pixel_feature.shape[1:])
