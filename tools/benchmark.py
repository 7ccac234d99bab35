"""Time and memory of a model: python tools/benchmark.py [--config-file CONFIG] [KEY VALUE ...]

Inference and a training step on random images and targets, each in a process of its own, so that
the peak memory is its own too. The figures are medians of this machine, at this moment.
"""

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable

import torch
from tabulate import tabulate
from tqdm import trange

from mask2former import device as devices
from mask2former import get_config_file
from mask2former.config import load_config

# isort: split
from detectron2.config import CfgNode
from detectron2.structures import Instances

from mask2former.engine import Trainer


def random_sample(size: tuple[int, int], num_targets: int, num_classes: int, seed: int) -> dict:
    """A model input: noise, and `num_targets` rectangles of random classes."""
    generator = torch.Generator().manual_seed(seed)
    height, width = size
    masks = torch.zeros(num_targets, height, width, dtype=torch.bool)
    for mask in masks:
        top, left = (torch.rand(2, generator=generator) * torch.tensor(size) * 0.7).long().tolist()
        mask[top : top + height // 4, left : left + width // 4] = True
    instances = Instances(size)
    instances.gt_classes = torch.randint(num_classes, (num_targets,), generator=generator)
    instances.gt_masks = masks
    image = torch.randint(256, (3, height, width), generator=generator, dtype=torch.uint8)
    return {"image": image, "height": height, "width": width, "instances": instances}


def inference(cfg: CfgNode, batch: list[dict]) -> Callable[[], None]:
    """What runs the model once."""
    model = Trainer.build_model(cfg).eval()

    def run() -> None:
        with torch.no_grad():  # as evaluations; not every plugin has views in inference_mode
            model(batch)

    return run


def training_step(cfg: CfgNode, batch: list[dict]) -> Callable[[], None]:
    """What runs forward, losses, backward and the optimizer once."""
    model = Trainer.build_model(cfg).train()
    optimizer = Trainer.build_optimizer(cfg, model)

    def run() -> None:
        optimizer.zero_grad()
        sum(model(batch).values()).backward()
        optimizer.step()

    return run


WORK = {"inference": inference, "training step": training_step}


def measure(name: str, args: argparse.Namespace) -> tuple[str, str, str, str]:
    """A row of the table: the median, the least and the largest time, and the peak memory."""
    cfg = load_config(args.config_file, ["MODEL.WEIGHTS", "", *args.opts])
    device = devices.resolve_device(cfg.MODEL.DEVICE)
    cfg.MODEL.DEVICE = str(device)
    num_classes = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    batch = [
        random_sample(tuple(args.size), args.num_targets, num_classes, seed)
        for seed in range(args.batch_size)
    ]
    run = WORK[name](cfg, batch)
    run()  # the first one also allocates and chooses kernels
    times = []
    for _ in trange(args.repeat, desc=name, leave=False):
        start = time.perf_counter()
        run()
        devices.synchronize(device)
        times.append(time.perf_counter() - start)
    memory = devices.max_memory_mb(device)
    spread = f"{min(times):.2f} - {max(times):.2f}"
    told = "unknown" if memory is None else f"{memory / 1024:.2f}"
    return name, f"{statistics.median(times):.2f}", spread, told


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config-file",
        default=get_config_file("cityscapes/semantic-segmentation/maskformer2_R50_bs16_90k.yaml"),
    )
    parser.add_argument("--size", type=int, nargs=2, default=(512, 1024), metavar=("H", "W"))
    parser.add_argument("--batch-size", type=int, default=1, help="images")
    parser.add_argument("--num-targets", type=int, default=12, help="masks of an image")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="config keys and values")
    args = parser.parse_args()
    # A fresh interpreter for each: what one allocates must not count for the other.
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        rows = [pool.apply(measure, (name, args)) for name in WORK]
    print(tabulate(rows, headers=["", "median s", "range s", "peak GB"], disable_numparse=True))


if __name__ == "__main__":
    main()
