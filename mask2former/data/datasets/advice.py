"""What to do about the missing files of a built-in dataset; each ends a sentence."""

import os


def unpack(root: str, directory: str, *archives: str) -> str:
    """For files of a download, which lie in ROOT/DIRECTORY."""
    *others, last = archives
    listed = f"{', '.join(others)} and {last}" if others else last
    return (
        f"unpack {listed} in {os.path.join(root, directory)}, or set "
        f"DETECTRON2_DATASETS to the directory that holds {directory}/"
    )


def prepare(root: str, directory: str, *scripts: str) -> str:
    """For files that scripts of datasets/ make of it."""
    base = os.path.join(root, directory)
    return f"run {' and '.join(f'python datasets/{script}.py {base}' for script in scripts)}"
