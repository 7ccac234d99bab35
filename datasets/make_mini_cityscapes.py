"""Draw mini Cityscapes: small streets in the layout of the real downloads.

python datasets/make_mini_cityscapes.py [ROOT] [--size 256 512] [--train 64] [--val 12]

What training reads besides is added by datasets/prepare_cityscapes.py, as with the real one.
Training on a mini_* dataset does both by itself if it is absent.
"""

import argparse
import os
import sys

from mask2former.data.mini import MiniSpec, make_mini_cityscapes


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default_root = os.path.join(os.getenv("DETECTRON2_DATASETS", "datasets"), "mini_cityscapes")
    parser.add_argument("root", nargs="?", default=default_root, help="default: %(default)s")
    spec = MiniSpec()
    parser.add_argument(
        "--size", type=int, nargs=2, default=(spec.height, spec.width), metavar=("HEIGHT", "WIDTH")
    )
    parser.add_argument("--train", type=int, default=spec.num_train, help="number of pictures")
    parser.add_argument("--val", type=int, default=spec.num_val, help="number of pictures")
    parser.add_argument("--test", type=int, default=spec.num_test, help="number of pictures")
    parser.add_argument("--seed", type=int, default=spec.seed)
    args = parser.parse_args()
    try:
        spec = MiniSpec(*args.size, args.train, args.val, args.test, args.seed)
        make_mini_cityscapes(args.root, spec)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"{args.root} is drawn; now: python datasets/prepare_cityscapes.py {args.root}")


if __name__ == "__main__":
    main()
