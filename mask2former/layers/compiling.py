"""torch.compile of parts of a model: MODEL.COMPILE."""

from collections.abc import Callable, Iterable

import torch
from torch import nn


def check_compiler(device: torch.device) -> None:
    """Compile and run something small: what is missing shows now, not within the first iteration.

    Raises:
        ValueError: torch.compile does not work on this device or machine.
    """
    try:
        torch.compile(lambda x: (x + 1).sin(), dynamic=True)(torch.zeros(8, device=device))
    except RuntimeError as error:  # of dynamo, of inductor, or of the C++ or triton behind it
        why = next(iter(filter(None, map(str.strip, str(error).splitlines()))), "no reason given")
        raise ValueError(
            f"MODEL.COMPILE=True, but torch.compile does not work on {device.type} here "
            f"({type(error).__name__}: {why}); set it to False"
        ) from error


def compile_parts(parts: Iterable[nn.Module], backend: str | Callable = "inductor") -> None:
    """Let each of `parts` be one program for inputs of any size, from its first call on.

    They stay the modules that they are, with their names and hooks. Inference and training, full
    and mixed precision are programs of their own.
    """
    for part in parts:
        part.compile(dynamic=True, backend=backend)
