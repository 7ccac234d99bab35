"""Which way to compute deformable attention is the fastest: python tools/benchmark_deform_attn.py

Every op that runs on the device has its turn in every round, so that whatever else the machine does
is shared by all of them. Sizes are those of an encoder layer: stride 32, 16 and 8 of an image. The
quickest is worth a MODEL.SEM_SEG_HEAD.MS_DEFORM_ATTN, if `auto` takes another one.
"""

import argparse
import math
import statistics
import time

import torch
from tabulate import tabulate
from tqdm import trange

from mask2former import device as devices
from mask2former.layers.levels import describe_levels
from mask2former.layers.ms_deform_attn import MS_DEFORM_ATTN_REGISTRY, build_ms_deform_attn

NUM_HEADS, HEAD_DIM, NUM_POINTS = 8, 32, 4  # the official model's


def random_inputs(
    batch_size: int, shapes: list[tuple[int, int]], device: torch.device
) -> list[torch.Tensor]:
    """Values, reference points, offsets and logits of pixels that look at all levels."""
    num_pixels = sum(map(math.prod, shapes))
    per_query = (batch_size, num_pixels, NUM_HEADS, len(shapes), NUM_POINTS)
    generator = torch.Generator().manual_seed(0)
    value = torch.randn(batch_size, num_pixels, NUM_HEADS, HEAD_DIM, generator=generator)
    places = torch.rand(num_pixels, 2, generator=generator)
    offsets = 4 * torch.randn(*per_query, 2, generator=generator)
    logits = torch.randn(per_query, generator=generator)
    return [x.to(device) for x in (value, places, offsets, logits)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="auto", help="as MODEL.DEVICE")
    parser.add_argument("--size", type=int, nargs=2, default=(512, 1024), metavar=("H", "W"))
    parser.add_argument("--batch-size", type=int, default=1, help="images")
    parser.add_argument("--repeat", type=int, default=5, help="rounds")
    args = parser.parse_args()
    device = devices.resolve_device(args.device)
    shapes = [tuple(math.ceil(n / stride) for n in args.size) for stride in (32, 16, 8)]
    levels = describe_levels(shapes, device)
    value, places, *others = random_inputs(args.batch_size, shapes, device)
    learned = [x.requires_grad_() for x in (value, *others)]
    ops = {name: op for name, op in MS_DEFORM_ATTN_REGISTRY if not op.why_not(device.type)}

    times = {name: ([], []) for name in ops}
    for round_number in trange(args.repeat + 1, leave=False):
        for name, op in ops.items():
            devices.synchronize(device)
            start = time.perf_counter()
            output = op.run(value, levels, places, *others)
            devices.synchronize(device)
            middle = time.perf_counter()
            torch.autograd.grad(output, learned, torch.ones_like(output))
            devices.synchronize(device)
            if round_number:  # the first one also allocates and chooses kernels
                times[name][0].append(middle - start)
                times[name][1].append(time.perf_counter() - middle)

    auto = build_ms_deform_attn("auto", device.type)
    rows = [
        [name + " (auto)" * (ops[name] is auto)]
        + [f"{1000 * f(part):.0f}" for part in parts for f in (statistics.median, min, max)]
        for name, parts in times.items()
    ]
    headers = ["ms", "forward", "least", "most", "backward", "least", "most"]
    print(f"{value.shape[1]} queries of {args.batch_size} image(s) on {device}")
    print(tabulate(rows, headers=headers, disable_numparse=True))


if __name__ == "__main__":
    main()
