"""Compare two trainings' losses: python tools/compare_loss.py A B [-o PICTURE.png]

A is the device's run or log, B the reference's (OUTPUT_DIR, metrics.json, log.txt, a log of
mmengine or with model-zoo lines). The rule is the model zoo's: the mean of (A-B)/B is at most 0.05,
or that of A-B at most 0.0002, both signed. Beside it stand the unsigned errors, and a loss that is
not finite fails. The exit code is 0 if A passes, 1 if it fails, and 2 if nothing can be compared.
"""

import argparse
import sys

from mask2former.curves import compare, draw_comparison, picture_path, read_run, report
from mask2former.curves.read import TOTAL_LOSS

PASS, FAIL, NOTHING = 0, 1, 2
PICTURE = "comparison.png"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("a", metavar="A", help="run or log of the device")
    parser.add_argument("b", metavar="B", help="run or log of the reference")
    parser.add_argument(
        "-o",
        "--output",
        metavar="PICTURE",
        help=f"draw both losses into this file (.png, .jpg), or into {PICTURE} of this folder",
    )
    args = parser.parse_args()
    try:
        a, b = (read_run(path)[TOTAL_LOSS] for path in (args.a, args.b))
        result = compare(a, b)
        print(f"A: {args.a}\nB: {args.b}", *report(result), sep="\n")
        if args.output:
            output = picture_path(args.output, PICTURE)
            draw_comparison(a, b, (args.a, args.b), output)
            print(f"Picture: {output}")
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(NOTHING)
    sys.exit(PASS if result.passes else FAIL)


if __name__ == "__main__":
    main()
