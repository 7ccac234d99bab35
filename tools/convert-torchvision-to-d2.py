"""From a ResNet of torchvision to a file that any detectron2 loads.

python tools/convert-torchvision-to-d2.py resnet50.pth resnet50.pkl

This project needs no conversion: MODEL.WEIGHTS takes the .pth file as it is.
"""

import argparse
import sys

from mask2former.engine.weight_files import convert_backbone


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", help="the .pth file")
    parser.add_argument("target", help="the .pkl file to write")
    args = parser.parse_args()
    try:
        convert_backbone(args.source, args.target, "torchvision")
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"{args.target} is written; set MODEL.WEIGHTS to it")


if __name__ == "__main__":
    main()
