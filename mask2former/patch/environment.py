"""The devices of this machine, in what detectron2 tells of it in logs and bug reports."""

from collections.abc import Callable

import torch

from mask2former import device as devices


def collect_env_info(original: Callable[[], str]) -> str:
    """detectron2's table of versions, below a line with the devices of the best type."""
    found = devices.describe(torch.device(devices.best_device_type()))
    return f"accelerator: {found}\n{original()}"
