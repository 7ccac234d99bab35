"""From the backbones that others publish to files that any detectron2 loads; not needed here."""

import argparse
import pickle
import sys

from mask2former.engine.weight_files import read_weights


def convert_backbone(source: str, target: str, author: str) -> None:
    """Write a published backbone as detectron2's model zoo does, so that any detectron2 loads it.

    Args:
        source: .pth file with the names of its authors.
        target: .pkl file to write.
        author: whose names to expect: "torchvision" or "Swin-Transformer".

    Raises:
        FileNotFoundError, ValueError: as `read_weights`; or the names are not the author's, or
            `target` is not named .pkl.
    """
    if not target.endswith(".pkl"):
        raise ValueError(f"{target}: detectron2 knows the format by its name; name it *.pkl")
    data = read_weights(source)
    if data.get("__author__") != author:
        raise ValueError(f"{source}: its names are not those of {author}'s backbones; give another")
    arrays = {name: value.numpy() for name, value in data["model"].items()}
    with open(target, "wb") as file:
        pickle.dump({**data, "model": arrays}, file)


def conversion_command(description: str, author: str) -> None:
    """The command line around `convert_backbone`."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", help="the .pth file")
    parser.add_argument("target", help="the .pkl file to write")
    args = parser.parse_args()
    try:
        convert_backbone(args.source, args.target, author)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"{args.target} is written; set MODEL.WEIGHTS to it")
