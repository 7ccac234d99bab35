"""Kernels of our own as operators of torch, so that autograd, compile and export know them.

B batch, Q queries, M heads, D channels a head, L levels, P points, S = sum of all H * W.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

# How kernels are told of the levels: by numbers of the host, or by what is on the device already.
SHAPES = "SymInt[] shapes"  # H and W of each level in turn
SIZES_AND_STARTS = "Tensor sizes, Tensor starts"  # as in Levels

Forward = Callable[..., Tensor]
Backward = Callable[..., tuple[Tensor, Tensor, Tensor]]


def contiguous(inputs: Sequence) -> Iterator:
    return (x.contiguous() if isinstance(x, Tensor) else x for x in inputs)


def check_sizes(value: Tensor, *others: Tensor | Sequence[int]) -> None:
    """That inputs fit together: kernels would read beyond those that are too small."""
    reference_points, offsets, logits = others[-3:]
    batch, num_queries, num_heads = offsets.shape[:3]
    assert (batch, num_heads) == (value.shape[0], value.shape[2]), (value.shape, offsets.shape)
    assert reference_points.shape == (num_queries, 2), (reference_points.shape, offsets.shape)
    assert offsets.shape == (*logits.shape, 2), (offsets.shape, logits.shape)


def register(
    name: str,
    device_type: str | None,
    forward: Forward,
    backward: Backward,
    levels: str = SHAPES,
) -> Forward:
    """The operator mask2former::NAME, which calls the two kernels and keeps its inputs only.

    Kernels get contiguous tensors. They return new contiguous tensors: the output in the value's
    type, each gradient in its input's.

    Args:
        device_type: whose tensors the kernels take; None: any.
        forward: (value, levels, reference_points, offsets, logits) -> output
        backward: (gradient of the output, and all inputs) -> those of value, offsets and logits
        levels: what stands for `levels` among the inputs, SHAPES or SIZES_AND_STARTS.
    Returns:
        What to call. (B,S,M,D), levels, (Q,2), (B,Q,M,L,P,2), (B,Q,M,L,P) -> (B,Q,M*D)
    """
    schema = f"Tensor value, {levels}, Tensor reference_points, Tensor offsets, Tensor logits"

    def run_forward(*inputs: Tensor | Sequence[int]) -> Tensor:
        check_sizes(*inputs)
        return forward(*contiguous(inputs))

    def run_backward(*inputs: Tensor | Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        return backward(*contiguous(inputs))

    def like_output(value: Tensor, *others: Tensor | Sequence[int]) -> Tensor:
        offsets = others[-2]
        return value.new_empty(*offsets.shape[:2], value.shape[2] * value.shape[3])

    def like_gradients(
        grad: Tensor, value: Tensor, *others: Tensor | Sequence[int]
    ) -> tuple[Tensor, ...]:
        return tuple(x.new_empty(x.shape) for x in (value, *others[-2:]))

    def keep(ctx: FunctionCtx, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(*(x for x in inputs if isinstance(x, Tensor)))
        ctx.shapes = [x for x in inputs if not isinstance(x, Tensor)]

    def differentiate(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        value, *others = ctx.saved_tensors
        inputs = value, *ctx.shapes, *others
        of_value, *of_others = backward_op(grad, *inputs)
        return of_value, *[None] * (len(inputs) - 3), *of_others

    def define(suffix: str, kernel: Callable, schema: str) -> torch.library.CustomOpDef:
        return torch.library.custom_op(
            f"mask2former::{name}{suffix}",
            kernel,
            mutates_args=(),
            device_types=device_type,
            schema=schema,
        )

    forward_op = define("", run_forward, f"({schema}) -> Tensor")
    backward_op = define(
        "_backward", run_backward, f"(Tensor grad, {schema}) -> (Tensor, Tensor, Tensor)"
    )
    forward_op.register_fake(like_output)
    backward_op.register_fake(like_gradients)
    forward_op.register_autograd(differentiate, setup_context=keep)
    return forward_op
