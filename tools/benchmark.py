"""Time and memory of models and their parts: python tools/benchmark.py [ROW ...] [KEY VALUE ...]

Rows, each in processes of its own:
    model          inference and a training step: our model in float32 and mixed precision, our
                   reference paths, and Mask2Former of Hugging Face transformers, if it is installed
                   and has the model, with the same weights and pictures
    parts          backbone, pixel decoder, transformer decoder, criterion, post-processing and
                   optimizer, beside what arithmetic and memory of this machine allow at best
    deform_attn    each way to compute deformable attention
    large_picture  memory of panoptic and instance results of one large picture
    data           loading for training: our mapper and a plain one, alone and through the loader
    evaluation     our evaluators, and the tools whose numbers they give, on the same predictions
Without a name it is `model`. Contenders take turns, so that whatever else the machine does is
shared by all; figures are those of this machine, at this moment.

    python tools/benchmark.py --repeat 10 --json model.json
    python tools/benchmark.py model --contenders ours,ours-mixed,ours-compiled,transformers
    python tools/benchmark.py parts deform_attn MODEL.DEVICE cuda
    python tools/benchmark.py data --config-file my.yaml DATALOADER.NUM_WORKERS 8
"""

import argparse
import importlib
import sys
from pathlib import Path
from typing import NamedTuple

from benchmarks.arguments import at_least, positive_numbers
from benchmarks.tables import machine, write_json

CITYSCAPES = "cityscapes/semantic-segmentation/maskformer2_R50_bs16_90k.yaml"
COCO = "coco/panoptic-segmentation/maskformer2_R50_bs16_50ep.yaml"


class Row(NamedTuple):
    module: str  # of the package benchmarks
    config: str
    size: tuple[int, int]


ROWS = {
    "model": Row("whole_model", CITYSCAPES, (512, 1024)),
    "parts": Row("parts", CITYSCAPES, (512, 1024)),
    "deform_attn": Row("deform_attn", CITYSCAPES, (512, 1024)),
    "large_picture": Row("large_picture", COCO, (4000, 5000)),
    "data": Row("data", "", ()),  # some configs, each with pictures of its own size
    "evaluation": Row("evaluation", "quick_start.yaml", (1024, 2048)),
}


def read_command_line() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", help="default: an R50, each row its own")
    parser.add_argument(
        "--size", type=at_least(1), nargs=2, metavar=("H", "W"), help="of the pictures"
    )
    parser.add_argument("--batch-size", type=at_least(1), default=1, help="images")
    parser.add_argument("--num-targets", type=at_least(0), default=12, help="masks of an image")
    parser.add_argument("--picture", metavar="FILE", help="show this one; default: noise")
    parser.add_argument("--repeat", type=at_least(1), default=5, help="rounds")
    parser.add_argument(
        "--contenders", metavar="A,B,...", help="of `model` and `deform_attn`: these and no others"
    )
    parser.add_argument("--work", choices=("inference", "training"), help="of `model`: only this")
    parser.add_argument(
        "--images-per-second",
        type=positive_numbers,
        default=(2.9, 30, 100),
        metavar="A,B,...",
        help="of `data`: for how many workers are needed; default: 2.9,30,100",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there, too")
    parser.add_argument("words", nargs="*", metavar="ROW, KEY VALUE", help="rows, then config keys")
    args = parser.parse_intermixed_args()
    # Config keys have capital letters.
    num_rows = next((i for i, w in enumerate(args.words) if w != w.lower()), len(args.words))
    args.contenders = args.contenders.split(",") if args.contenders else []
    args.rows, args.opts = args.words[:num_rows] or ["model"], args.words[num_rows:]
    for row in args.rows:
        if row not in ROWS:
            parser.error(f"there is no row {row!r}; name some of {', '.join(ROWS)}")
    return args


def prepare(args: argparse.Namespace) -> None:
    """Look up the device, and what else figures depend on.

    Raises:
        FileNotFoundError, ValueError: there is no such config, key or device.
    """
    # Not above: the processes that measure begin by importing this file (see measuring.py).
    from mask2former import device as devices
    from mask2former.config import load_config

    cfg = load_config(args.config_file or CITYSCAPES, args.opts)
    args.device = str(devices.resolve_device(cfg.MODEL.DEVICE))
    args.about = machine() | {"device": devices.describe(devices.resolve_device(args.device))}


def main() -> None:
    args = read_command_line()
    try:
        prepare(args)
        print(*(f"{name}: {value}" for name, value in args.about.items()), sep=", ")
        tables = []
        for module, config, size in (ROWS[name] for name in args.rows):
            own = {"config_file": args.config_file or config, "size": tuple(args.size or size)}
            measure = importlib.import_module(f"benchmarks.{module}").measure
            found = measure(argparse.Namespace(**{**vars(args), **own}))
            print(*("", *found), sep="\n", flush=True)
            tables += found
        if args.json:
            write_json(args.json, {**args.about, "command": sys.argv[1:]}, tables)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
