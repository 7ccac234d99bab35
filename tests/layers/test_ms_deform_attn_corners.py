"""What holds for the ops that read the corners' rows."""

import math
from functools import partial

import pytest
import torch
from deform_attn_cases import HALVES, assert_only_results_are_rounded, gradients, random_inputs

from mask2former.layers.ms_deform_attn.embedding_bag import EmbeddingBag
from mask2former.layers.ms_deform_attn.gather import Gather

of_each_op = pytest.mark.parametrize("op", [Gather, EmbeddingBag])


@of_each_op
@pytest.mark.parametrize("dtypes", HALVES, ids=str)
def test_half_precision_rounds_the_results_only(op, dtypes):
    assert_only_results_are_rounded(partial(gradients, op), *dtypes, queries=30, channels=8)


@of_each_op
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_changes_nothing(op, dtype):
    value, *others = (x.float() for x in random_inputs())
    inputs = value.to(dtype), *others
    expected = gradients(op, inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        results = gradients(op, inputs)
    for result, same in zip(results, expected):
        assert result.dtype == same.dtype and torch.equal(result, same)


@of_each_op
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_broken_offset_breaks_its_own_query_only(op, bad):
    """The loss then tells of it; an index beyond the values would end the process on a device."""
    inputs = random_inputs()
    expected, *_ = gradients(op, inputs)
    inputs[2][1, 2] = bad
    result, *grads = gradients(op, inputs)
    assert result[1, 2].isnan().all()
    result[1, 2] = expected[1, 2]
    assert torch.equal(result, expected)
    assert grads[2][0].isfinite().all()


@of_each_op
@pytest.mark.parametrize("far", [1e9, -1e30, 3e38])
def test_far_outside_there_is_nothing(op, far):
    """Also where the number of a pixel would be no int."""
    inputs = [x.float() for x in random_inputs()]
    inputs[2][1, 2] = far
    result, _, of_offsets, of_logits = gradients(op, inputs)
    assert (result[1, 2] == 0).all()
    assert (of_offsets[1, 2] == 0).all() and (of_logits[1, 2] == 0).all()
