"""Multi-scale deformable attention with its projections (Deformable DETR, sec. 4.1 and A.2).

B batch, Q queries, C channels, M heads, L levels, P points, S = sum of H * W over the levels.
"""

import math

import torch
from torch import Tensor, nn

from mask2former.layers.levels import Levels
from mask2former.layers.ms_deform_attn.build import (
    MS_DEFORM_ATTN_REGISTRY,
    build_ms_deform_attn,
    check_name,
)


def chosen_name(name: str, device_type: str) -> str:
    return build_ms_deform_attn(name, device_type).__name__


# torch.compile takes the choice as made, as it cannot follow it. This is all that
# torch.compiler.assume_constant_result does, after it has imported the compiler for seconds.
chosen_name._dynamo_marked_constant = True


class MSDeformAttn(nn.Module):
    """Each query looks, in each level, at a few points around its own place."""

    def __init__(
        self,
        dim: int,
        num_levels: int,
        num_heads: int,
        num_points: int,
        op_name: str = "auto",
    ):
        """
        Args:
            op_name: entry of MS_DEFORM_ATTN_REGISTRY, or "auto".
        Raises:
            ValueError: dim is not a multiple of num_heads, or there is no such op.
        """
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"{dim} channels do not divide into {num_heads} attention heads")
        check_name(op_name)  # the device, and so whether it runs there, is known later only
        self.num_heads = num_heads
        self.num_levels = num_levels
        self.num_points = num_points
        self.op_name = op_name
        num_samples = num_heads * num_levels * num_points
        self.sampling_offsets = nn.Linear(dim, num_samples * 2)
        self.attention_weights = nn.Linear(dim, num_samples)
        self.value_proj = nn.Linear(dim, dim)
        self.output_proj = nn.Linear(dim, dim)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """At first, point p of each head lies p + 1 steps away in the head's own direction."""
        nn.init.zeros_(self.sampling_offsets.weight)
        angles = torch.arange(self.num_heads) * (2 * math.pi / self.num_heads)
        directions = torch.stack((angles.cos(), angles.sin()), dim=-1)  # (M,2)
        directions /= directions.abs().amax(-1, keepdim=True)  # onto the unit square
        steps = torch.arange(1.0, self.num_points + 1)  # (P,)
        offsets = directions[:, None, None] * steps[:, None]  # (M,1,P,2)
        offsets = offsets.expand(-1, self.num_levels, -1, -1)
        self.sampling_offsets.bias.copy_(offsets.flatten())

        nn.init.zeros_(self.attention_weights.weight)  # so all points count alike
        nn.init.zeros_(self.attention_weights.bias)
        for projection in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def forward(
        self, query: Tensor, reference_points: Tensor, feature: Tensor, levels: Levels
    ) -> Tensor:
        """
        Args:
            reference_points: the queries' own places, (x, y) in [0, 1].
            feature: the levels, flattened and joined in the order of `levels`.
        Shapes: (B,Q,C), (Q,2), (B,S,C), L levels -> (B,Q,C)
        """
        per_sample = (self.num_heads, self.num_levels, self.num_points)
        value = self.value_proj(feature).unflatten(-1, (self.num_heads, -1))  # (B,S,M,D)
        offsets = self.sampling_offsets(query).unflatten(-1, (*per_sample, 2))  # (B,Q,M,L,P,2)
        logits = self.attention_weights(query).unflatten(-1, per_sample)  # (B,Q,M,L,P)

        op = MS_DEFORM_ATTN_REGISTRY.get(chosen_name(self.op_name, query.device.type))
        return self.output_proj(op.run(value, levels, reference_points, offsets, logits))
