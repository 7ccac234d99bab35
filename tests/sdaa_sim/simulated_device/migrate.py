"""Redirect torch.cuda to the device's module at run time, as the vendor's cuda_migrate does."""

from types import ModuleType

import torch

from simulated_device import settings


def migrate() -> None:
    """torch.cuda.X becomes torch.<name>.X for every X there is; also .cuda() of tensors, modules.

    From then on nobody can tell from torch.cuda that there is no CUDA. Device strings stay.
    """
    module = getattr(torch, settings.name())
    _redirect(torch.cuda, module)
    _redirect(torch.cuda.amp, module.amp)
    # Optimizers ask where there seems to be CUDA; a torch built with it would ask its driver.
    torch.cuda.is_current_stream_capturing = lambda: False
    for kind in (torch.Tensor, torch.nn.Module):
        kind.cuda = getattr(kind, settings.name())
    settings.log("cuda_migrate")


def _redirect(source: ModuleType, target: ModuleType) -> None:
    for name, value in vars(target).items():
        # Older versions of torch refuse a function where a class has been.
        keeps_class = isinstance(getattr(source, name, None), type) > isinstance(value, type)
        if not (name.startswith("__") or isinstance(value, ModuleType) or keeps_class):
            setattr(source, name, value)
