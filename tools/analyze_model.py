"""Parameters, operations, time and memory of a model by module.

    python tools/analyze_model.py --config-file CONFIG [--depth 2] [KEY VALUE ...]

Time and GFLOP (a product and a sum are two operations) are those of inference on a picture of
noise; memory is what a training step's forward pass keeps for backward. A module that is not called
itself, such as a list, has the sum of what is in it.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.arguments import at_least
from benchmarks.modules import analyze
from benchmarks.our_model import Ours, as_batch, build_model, check_not_compiled
from benchmarks.pictures import random_picture
from benchmarks.tables import machine, write_json

from mask2former import device as devices
from mask2former.config import load_config

CONFIG = "cityscapes/semantic-segmentation/maskformer2_R50_bs16_90k.yaml"
IN_FULL = ("MODEL.WEIGHTS", "", "TEST.AMP.ENABLED", "False")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", default=CONFIG, help=f"default: {CONFIG}")
    parser.add_argument(
        "--size", type=at_least(1), nargs=2, default=(512, 1024), metavar=("H", "W")
    )
    parser.add_argument("--num-targets", type=at_least(0), default=12, help="masks of the image")
    parser.add_argument("--depth", type=at_least(1), default=2, help="of the modules' names")
    parser.add_argument("--repeat", type=at_least(1), default=3, help="rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there, too")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="config keys and values")
    args = parser.parse_args()
    ours = Ours(args.config_file, (*IN_FULL, *args.opts))
    try:
        cfg = load_config(ours.config_file, ours.opts)
        check_not_compiled(cfg)
        device = devices.resolve_device(cfg.MODEL.DEVICE)
        model = build_model(ours.config(str(device)))
        num_classes = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
        picture = random_picture(tuple(args.size), args.num_targets, num_classes, seed=0)
        table = analyze(model, as_batch([picture]), args.depth, args.repeat)
        print(table)
        if args.json:
            about = machine() | {"device": devices.describe(device), "command": sys.argv[1:]}
            write_json(args.json, about, [table])
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
