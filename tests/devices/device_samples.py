"""A worker's compact samples, pinned, sent to a device, and unpacked there as on the CPU."""

import sys

import mask2former  # noqa: F401  isort: skip
import torch
from tiny_model import as_labels, as_runs, example
from torch.utils.data import DataLoader

from mask2former import device as devices
from mask2former.data.compact import ground_truth
from mask2former.modeling.maskformer_model import prepare_target

FRAME = (80, 112)


def compact(seed, make_masks):
    sample = example(seed)
    instances = sample["instances"]
    masks = make_masks(instances.gt_masks, FRAME)
    return {**sample, "instances": ground_truth(instances.gt_classes, masks), "padded_size": FRAME}


def parts(sample):
    masks = sample["instances"].gt_masks
    runs_or_labels = [masks.runs] if hasattr(masks, "runs") else [masks.labels, masks.values]
    return [sample["image"], sample["instances"].gt_classes, *runs_or_labels]


def check(device, pin_memory_device):
    samples = [compact(0, as_labels), compact(1, as_runs)]
    loader = DataLoader(
        samples, None, num_workers=1, pin_memory=True, pin_memory_device=pin_memory_device
    )
    asked = (device.type,) if pin_memory_device else ()
    for sample, received in zip(samples, loader, strict=True):
        assert all(part.is_pinned(*asked) for part in parts(received))
        expected = prepare_target(sample, (96, 128), torch.device("cpu"))
        target = prepare_target(received, (96, 128), device)
        for key, value in expected.items():
            assert target[key].device.type == device.type
            assert torch.equal(target[key].cpu(), value)


if __name__ == "__main__":
    device = devices.resolve_device(sys.argv[1])
    # torch 2.4 pins for CUDA unless told otherwise; later versions warn of being told.
    check(device, device.type if torch.__version__.startswith("2.4.") else "")
    print("as on the CPU")
