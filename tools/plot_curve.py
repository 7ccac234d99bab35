"""Draw the curves of trainings: python tools/plot_curve.py RUN [RUN ...] [-o PICTURE.png]

RUN is an OUTPUT_DIR, a metrics.json, a log.txt or what was on the console, a text log or
scalars.json of mmengine or mmcv, or any log with model-zoo lines. Drawn is what it has of the loss
and its parts, learning rate, throughput and validation scores; several runs share one picture.
"""

import argparse
import os
import sys

from mask2former.curves import draw_runs, picture_path, read_run

PICTURE = "loss_curve.png"


def default_picture(runs: list[str]) -> str:
    """Within an OUTPUT_DIR, and beside a file; of several runs in the current folder."""
    if len(runs) > 1:
        return PICTURE
    (run,) = runs
    return os.path.join(run, PICTURE) if os.path.isdir(run) else f"{os.path.splitext(run)[0]}.png"


def default_labels(runs: list[str]) -> list[str]:
    """The last part of each path, or the whole paths if two have the same."""
    names = [os.path.basename(os.path.normpath(run)) for run in runs]
    return names if len(set(names)) == len(names) else runs


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="*", metavar="RUN")
    parser.add_argument("--labels", nargs="+", metavar="LABEL", help="one for each run")
    parser.add_argument(
        "-o",
        "--output",
        metavar="PICTURE",
        help=f"file, or folder of a {PICTURE}; default: {PICTURE} in the OUTPUT_DIR, a .png beside "
        f"a file, and of several runs {PICTURE} in the current folder",
    )
    args = parser.parse_args()
    labels = args.labels or default_labels(args.runs)
    try:
        if not args.runs:
            raise ValueError("name what to draw: a run's OUTPUT_DIR, its metrics.json, or a log")
        if len(set(labels)) != len(args.runs):
            raise ValueError(f"{len(args.runs)} runs, but the labels {labels}; give each its own")
        output = picture_path(args.output or default_picture(args.runs), PICTURE)
        draw_runs(dict(zip(labels, map(read_run, args.runs))), output)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    print(f"Picture: {output}")


if __name__ == "__main__":
    main()
