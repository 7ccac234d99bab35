"""Make what training reads from the unpacked downloads of Cityscapes.

python datasets/prepare_cityscapes.py ROOT [--workers N]

ROOT holds leftImg8bit/ and gtFine/. Added to gtFine/: *_labelTrainIds.png beside each polygons
file, and cityscapes_panoptic_{train,val}/ with a JSON each. What is there and whole is kept, so
an interrupted run is started again by the same command.
"""

import argparse
import os
import sys

from mask2former.data.prepare.cityscapes import prepare_cityscapes


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", help="directory with leftImg8bit/ and gtFine/")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes; default: %(default)s"
    )
    args = parser.parse_args()
    try:
        prepare_cityscapes(args.root, args.workers)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"{args.root} is prepared")


if __name__ == "__main__":
    main()
