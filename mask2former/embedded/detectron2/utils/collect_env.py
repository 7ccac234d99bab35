"""What to put into a bug report."""

import importlib.metadata
import os
import platform
import sys

import torch
from tabulate import tabulate

import detectron2
from detectron2.utils import _accelerator

__all__ = ["collect_env_info"]

_PACKAGES = ("numpy", "pillow", "opencv-python", "fvcore", "iopath", "pycocotools", "torchvision")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def collect_env_info() -> str:
    """A table of the versions of python, libraries and devices."""
    rows = [
        ("platform", platform.platform()),
        ("python", sys.version.replace("\n", " ")),
        ("detectron2", f"{detectron2.__version__} in {os.path.dirname(detectron2.__file__)}"),
        ("torch", f"{torch.__version__} in {os.path.dirname(torch.__file__)}"),
        ("torch threads", torch.get_num_threads()),
        ("device type", _accelerator.device_type()),
    ]
    accelerator = _accelerator.module()
    if accelerator is not None:
        name = getattr(accelerator, "get_device_name", lambda index: "of unknown name")
        rows += [(f"device {i}", name(i)) for i in range(accelerator.device_count())]
    rows += [(package, _version(package)) for package in _PACKAGES]
    return tabulate(rows)
