"""The process's environment: random seeds and libraries."""

import functools
import logging
import os
import random

import numpy as np
import torch

__all__ = ["TORCH_VERSION", "seed_all_rng", "setup_environment"]

TORCH_VERSION = tuple(int(part) for part in torch.__version__.split(".")[:2])


def seed_all_rng(seed: int | None = None) -> None:
    """Seed python, numpy and torch on all devices; None draws a seed and logs it."""
    if seed is None:
        seed = int.from_bytes(os.urandom(4), "little")
        logging.getLogger(__name__).info("No seed given; this run has %d", seed)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)  # of every device type
    os.environ["PYTHONHASHSEED"] = str(seed)


@functools.cache
def setup_environment() -> None:
    """Make libraries fit for training; calling it again does nothing.

    OpenCV's OpenCL takes device memory and clashes with forked workers.
    """
    os.environ["OPENCV_OPENCL_RUNTIME"] = "disabled"
    import cv2

    cv2.ocl.setUseOpenCL(False)
