"""Kernels of our own as operators of torch, so that autograd, compile and export know them.

B batch, Q queries, M heads, D channels a head, L levels, P points, S = sum of all H * W.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

INPUTS = "Tensor value, SymInt[] shapes, Tensor reference_points, Tensor offsets, Tensor logits"

Forward = Callable[[Tensor, Sequence[int], Tensor, Tensor, Tensor], Tensor]
Backward = Callable[
    [Tensor, Tensor, Sequence[int], Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]
]


def register(name: str, device_type: str | None, forward: Forward, backward: Backward) -> Forward:
    """The operator mask2former::NAME, which calls the two kernels and keeps its inputs only.

    Kernels get contiguous tensors, and `shapes`, H and W of each level in turn. They return new
    contiguous tensors: the output in the value's type, each gradient in its input's.

    Args:
        device_type: whose tensors the kernels take; None: any.
        forward: (value, shapes, reference_points, offsets, logits) -> output
        backward: (gradient of the output, and all inputs) -> those of value, offsets and logits
    Returns:
        What to call. (B,S,M,D), 2L, (Q,2), (B,Q,M,L,P,2), (B,Q,M,L,P) -> (B,Q,M*D)
    """

    def run_forward(value: Tensor, shapes: Sequence[int], *others: Tensor) -> Tensor:
        return forward(value.contiguous(), shapes, *(x.contiguous() for x in others))

    def run_backward(
        grad: Tensor, value: Tensor, shapes: Sequence[int], *others: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        others = (x.contiguous() for x in others)
        return backward(grad.contiguous(), value.contiguous(), shapes, *others)

    def like_output(value: Tensor, shapes: Sequence[int], *others: Tensor) -> Tensor:
        _, offsets, _ = others
        return value.new_empty(*offsets.shape[:2], value.shape[2] * value.shape[3])

    def like_gradients(
        grad: Tensor, value: Tensor, shapes: Sequence[int], *others: Tensor
    ) -> tuple[Tensor, ...]:
        _, offsets, logits = others
        return tuple(x.new_empty(x.shape) for x in (value, offsets, logits))

    def keep(ctx: FunctionCtx, inputs: tuple, output: Tensor) -> None:
        value, ctx.shapes, *others = inputs
        ctx.save_for_backward(value, *others)

    def differentiate(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        value, *others = ctx.saved_tensors
        of_value, of_offsets, of_logits = backward_op(grad, value, ctx.shapes, *others)
        return of_value, None, None, of_offsets, of_logits

    def define(suffix: str, kernel: Callable, schema: str) -> torch.library.CustomOpDef:
        return torch.library.custom_op(
            f"mask2former::{name}{suffix}",
            kernel,
            mutates_args=(),
            device_types=device_type,
            schema=schema,
        )

    forward_op = define("", run_forward, f"({INPUTS}) -> Tensor")
    backward_op = define(
        "_backward", run_backward, f"(Tensor grad, {INPUTS}) -> (Tensor, Tensor, Tensor)"
    )
    forward_op.register_fake(like_output)
    backward_op.register_fake(like_gradients)
    forward_op.register_autograd(differentiate, setup_context=keep)
    return forward_op
