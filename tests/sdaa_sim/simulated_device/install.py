"""Make a simulated device known to torch."""

import os
import sys
from types import ModuleType

import torch

from simulated_device import amp, build, collectives, cuda_calls, runtime, settings


def install(name: str, collectives_name: str) -> ModuleType:
    """Name torch's third-party device `name`; returns `torch.<name>`.

    Raises:
        ImportError: the device cannot be compiled here; the message says why.
    """
    torch.ops.load_library(str(build.library()))
    torch.utils.rename_privateuse1_backend(name)
    module = _module(name)
    torch._register_device_module(name, module)
    torch.utils.generate_methods_for_privateuse1_backend(for_storage=True)
    torch.ops.device_sim.start(
        runtime.device_count(),
        runtime.get_device_properties(None).total_memory if runtime.device_count() else 0,
        settings.setting("LOG"),
        settings.setting("RANDOM") == "cpu",
    )
    runtime.make_default_generators()
    module.default_generators = runtime.default_generators
    runtime._fail_next(*settings.out_of_memory())
    os.register_at_fork(after_in_child=runtime.after_fork)
    if torch.distributed.is_available():
        collectives.register(collectives_name)
    # Who sees no device runs on another, and may ask torch.cuda for one.
    if settings.setting("CUDA") != "allow" and runtime.device_count():
        cuda_calls.forbid()
    return module


def _module(name: str) -> ModuleType:
    module = ModuleType(f"torch.{name}", runtime.__doc__)
    private = ("_exchange_device", "_maybe_exchange_device", "_is_in_bad_fork", "_fail_next")
    for key in (*runtime.__all__, *private):
        setattr(module, key, getattr(runtime, key))
    module.amp = sys.modules[f"torch.{name}.amp"] = ModuleType(f"torch.{name}.amp", amp.__doc__)
    for key in amp.__all__:
        setattr(module.amp, key, getattr(amp, key))
    if settings.setting("OLD_AMP") == "1":
        amp.forbid_new_spelling()
    else:
        module.get_amp_supported_dtype = amp.get_amp_supported_dtype
    return module
