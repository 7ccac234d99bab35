"""The command line that all datasets/prepare_*.py share."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from mask2former.data.files import datasets_root


def prepare_command(prepare: Callable[[Path, int], None], description: str, directory: str) -> None:
    """Run `prepare` on the root and the number of processes of the command line.

    A user's mistake ends the process with one sentence.

    Args:
        directory: of the dataset in DETECTRON2_DATASETS, for a command without a root.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = os.path.join(datasets_root(), directory)
    parser.add_argument("root", nargs="?", default=default, help="default: %(default)s")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes; default: %(default)s"
    )
    args = parser.parse_args()
    try:
        prepare(Path(args.root), args.workers)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"{args.root} is prepared")
