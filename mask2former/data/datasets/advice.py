"""What to do about the missing files of a built-in dataset; each ends a sentence."""

import os


def unpack(root: str, directory: str, *archives: str) -> str:
    """For files of a download, which lie in ROOT/DIRECTORY."""
    *others, last = archives
    listed = f"{', '.join(others)} and {last}" if others else last
    # Not "in": some archives hold the directory itself, some what belongs into it.
    return (
        f"unpack {listed} so that {os.path.join(root, directory)} holds their files, or set "
        f"DETECTRON2_DATASETS to the directory that holds {directory}/"
    )


def prepare(root: str, directory: str, *scripts: str) -> str:
    """For files that scripts of datasets/ make of it."""
    base = os.path.join(root, directory)
    return f"run {' and '.join(f'python datasets/{script}.py {base}' for script in scripts)}"
