"""train_net.py on an accelerator that is one more entry of the table, and nothing else."""

import sys

import torch

sys.modules["torch_sdaa"] = None  # not installed: torch can have one such device

from mask2former import device as devices  # noqa: E402
from mask2former.engine import argument_parser, main  # noqa: E402
from mask2former.patch import know_all_devices  # noqa: E402

HALVES = (torch.float16, torch.bfloat16)
devices.ACCELERATORS.insert(
    0, devices.Accelerator("zpu", "zccl", "torch_zpu", HALVES, "ZPU_VISIBLE_DEVICES")
)
know_all_devices()  # importing mask2former, before there was the entry, had no reason to do it

if __name__ == "__main__":
    main(argument_parser().parse_args())
