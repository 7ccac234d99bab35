"""Look a dataset through before training: python tools/check_dataset.py NAME [NAME ...]

NAME is a catalog name, or says where files lie (docs/own_data.md):
    semantic:IMAGES:LABELS   coco:ANNOTATIONS.json:IMAGES   panoptic:PANOPTIC.json:IMAGES:PNGS
Reported are broken, missing and mismatched files, masks and labels, and how often each class
occurs; some pictures are drawn with their masks. The exit code is 0 if all of it is fit for
training, 1 if there are faults (warnings are none), and 2 if a dataset cannot be read at all.
"""

import argparse
import os
import re
import sys

import mask2former  # noqa: F401  (which detectron2 it is, and the catalogs)
from mask2former.data.check import check_dataset, draw_sheet, report

FIT, FAULTY, UNREADABLE = 0, 1, 2


def check(name: str, args: argparse.Namespace) -> int:
    """Report on one dataset; returns the exit code."""
    try:
        findings = check_dataset(name, args.workers, not args.quiet)
    except (ValueError, OSError) as error:
        print(f"{name}: cannot be read: {error}", file=sys.stderr)
        return UNREADABLE
    print(report(findings, args.max_listed))
    if args.pictures:
        os.makedirs(args.output, exist_ok=True)
        path = os.path.join(args.output, f"{re.sub('[^0-9A-Za-z]+', '_', name).strip('_')}.png")
        if draw_sheet(findings, path, args.pictures):
            print(f"some of its pictures: {path}")
    return FIT if findings.is_fit else FAULTY


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--pictures", type=int, default=12, help="on the sheet; 0: no sheet")
    parser.add_argument("--output", default="output/check_dataset", help="folder for the sheets")
    parser.add_argument("--max-listed", type=int, default=10, help="faults of one kind")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    args = parser.parse_args()
    sys.exit(max(check(name, args) for name in args.names))


if __name__ == "__main__":
    main()
