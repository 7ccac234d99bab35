"""A simulated `torch_sdaa`: importing it makes `torch.sdaa` and tccl. See ../README.md."""

import os

from simulated_device.install import install

sdaa = install("sdaa", "tccl")
print(f"torch_sdaa: SIMULATED on the CPU, {sdaa.device_count()} device(s)")

if os.environ.get("TORCH_SDAA_AUTOLOAD") == "cuda_migrate":
    from torch_sdaa.utils import cuda_migrate  # noqa: F401
