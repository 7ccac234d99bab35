"""Evaluators count on the simulated device what they count on the CPU."""

import math

import device_evaluators
import torch
from simulator import run


def test_counts_are_the_same(tmp_path):
    run([device_evaluators.__file__, tmp_path / "numbers.pt"])
    found = torch.load(tmp_path / "numbers.pt")
    expected = device_evaluators.numbers("cpu")
    assert sum(map(sum, expected["panoptic"])) == math.prod(device_evaluators.SIZE)
    assert found.keys() == expected.keys()
    for task, counts in expected.items():
        assert found[task] == counts, task
