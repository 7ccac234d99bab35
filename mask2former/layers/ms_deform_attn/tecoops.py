"""Deformable attention by the kernels of the package `tecoops`, where it is installed.

Its interface, as the operator documents of its public repository (Tecorigin/teco-ops) give it:

    ms_deform_attn_forward(value, spatial_shapes, sampling_locations, attention_weights)
    ms_deform_attn_backward(value, spatial_shapes, sampling_locations, attention_weights, grad)

with the shapes of ms_deform_attn_reference, spatial_shapes (L,2) int64 of (H,W), all contiguous on
the device, of float32 (or float16, which we do not use), D up to 128, L up to 8, nothing empty.
Backward returns the gradients of value, locations and weights. Neither takes the start of the
levels or an im2col_step, unlike the CUDA operators of the same names.

B batch, Q queries, M heads, D channels a head, L levels, P points, S = sum of all H * W.
"""

import importlib
import importlib.util

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from mask2former.device import operator_package
from mask2former.layers.levels import Levels
from mask2former.layers.ms_deform_attn.build import MS_DEFORM_ATTN_REGISTRY, MSDeformAttnOp
from mask2former.layers.ms_deform_attn.sampling import locate_and_weigh

PACKAGE = "tecoops"
FUNCTIONS = ("ms_deform_attn_forward", "ms_deform_attn_backward")


class _Kernels(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, *inputs: Tensor) -> Tensor:
        """Shapes: (B,S,M,D), (L,2), (B,Q,M,L,P,2), (B,Q,M,L,P) -> (B,Q,M*D)"""
        ctx.save_for_backward(*inputs)
        return importlib.import_module(PACKAGE).ms_deform_attn_forward(*inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None, Tensor, Tensor]:
        """Shapes: (B,Q,M*D) -> those of the inputs"""
        kernel = importlib.import_module(PACKAGE).ms_deform_attn_backward
        of_value, of_locations, of_weights = kernel(*ctx.saved_tensors, grad.contiguous())
        return of_value, None, of_locations, of_weights


@MS_DEFORM_ATTN_REGISTRY.register()
class Tecoops(MSDeformAttnOp):
    """The device maker's kernels, in float32."""

    @staticmethod
    def rank(device_type: str) -> int:
        return 5

    @staticmethod
    def why_not(device_type: str) -> str:
        if operator_package(device_type) != PACKAGE:
            return "its kernels are for another device"
        if importlib.util.find_spec(PACKAGE) is None:
            return f"no package {PACKAGE}"
        try:
            package = importlib.import_module(PACKAGE)
        except ImportError as error:  # a library of another version, say
            return f"{PACKAGE} cannot be imported: {error}"
        missing = [name for name in FUNCTIONS if not hasattr(package, name)]
        return f"{PACKAGE} has no {' and no '.join(missing)}" if missing else ""

    @staticmethod
    def run(
        value: Tensor, levels: Levels, reference_points: Tensor, offsets: Tensor, logits: Tensor
    ) -> Tensor:
        spatial_shapes = levels.sizes.flip(1).long()  # (L,2) of (H,W)
        value_type = value.dtype
        samples = locate_and_weigh(levels, reference_points, offsets, logits)
        value, locations, weights = (x.float().contiguous() for x in (value, *samples))
        return _Kernels.apply(value, spatial_shapes, locations, weights).to(value_type)
