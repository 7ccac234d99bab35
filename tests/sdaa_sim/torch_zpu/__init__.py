"""A second made-up accelerator, which shows that nothing depends on the first one's name."""

from simulated_device.install import install

zpu = install("zpu", "zccl")
