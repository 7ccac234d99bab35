"""The command line that datasets/make_mini_*.py share."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from mask2former.data.files import datasets_root
from mask2former.data.mini.maker import DEFAULT_SPEC, MiniSpec


def mini_command(
    makers: Sequence[Callable[[Path, MiniSpec], None]],
    description: str,
    default: MiniSpec = DEFAULT_SPEC,
    *,
    directory: str = "mini",
    done: str = "{root} is drawn and prepared; train with DETECTRON2_DATASETS={root}",
) -> None:
    """Run each of `makers` on the root and the spec of the command line.

    A user's mistake ends the process with one sentence.

    Args:
        directory: in DETECTRON2_DATASETS, for a command without a root. Not the directory of the
            real datasets: the miniatures have the same names.
        done: what is said in the end, of the root.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    root = os.path.join(datasets_root(), directory)
    parser.add_argument("root", nargs="?", default=root, help="default: %(default)s")
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        default=(default.height, default.width),
        metavar=("HEIGHT", "WIDTH"),
    )
    parser.add_argument("--train", type=int, default=default.num_train, help="number of pictures")
    parser.add_argument("--val", type=int, default=default.num_val, help="number of pictures")
    parser.add_argument("--seed", type=int, default=default.seed)
    args = parser.parse_args()
    try:
        spec = MiniSpec(*args.size, args.train, args.val, args.seed)
        for make in makers:
            make(Path(args.root), spec)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(done.format(root=args.root))
