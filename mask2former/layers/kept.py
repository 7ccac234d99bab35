"""Tensors that follow from sizes alone, such as positions: made once for each size and device."""

import functools
from collections.abc import Callable
from typing import TypeVar

import torch
from torch._guards import detect_fake_mode

NUM_KEPT = 6  # two sizes of image with three levels each

_Result = TypeVar("_Result")


def kept(function: Callable[..., _Result]) -> Callable[..., _Result]:
    """Let calls with equal arguments share one result, of which the last NUM_KEPT are kept.

    `function` makes tensors of numbers, and takes hashable arguments only, the device among them.
    Nobody may change its results in place. They may be saved for backward, even if inference mode
    has asked for them first. A compiler gets the function itself: its sizes are symbols. So do
    fake tensors, which have no numbers to keep.
    """

    @functools.lru_cache(NUM_KEPT)
    def make(*args) -> _Result:
        with torch.inference_mode(False), torch.no_grad():
            return function(*args)

    @functools.wraps(function)
    def get(*args) -> _Result:
        if torch.compiler.is_compiling() or detect_fake_mode() is not None:
            return function(*args)
        return make(*args)

    return get
