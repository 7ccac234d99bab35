"""A folder that several processes fill, and that is whole or not there."""

import os
import re
import shutil
import uuid
import zlib
from pathlib import Path

from detectron2.utils import comm

FOLDER = "predictions"  # of all datasets, in that of an evaluation


def folder_of(dataset_name: str, parent: str | Path) -> Path:
    """Where the predictions of a dataset lie.

    Names that are no file names, as those of a user's own data, are made ones, and kept apart by a
    number.
    """
    name = re.sub(r"[^0-9A-Za-z._-]+", "_", dataset_name)
    if name != dataset_name:
        name = f"{name[-80:].strip('_')}_{zlib.crc32(dataset_name.encode()):08x}"
    return Path(parent) / name


def begin(target: Path) -> Path:
    """The same empty folder in all processes, for what will be `target`. All of them call this.

    Raises:
        FileNotFoundError: this process does not see the folder that the main one has made.
    """
    half = target.with_name(f".{target.name}.half_{comm.all_gather(uuid.uuid4().hex)[0]}")
    if comm.is_main_process():
        for left_by_a_killed_run in target.parent.glob(f".{target.name}.half_*"):
            shutil.rmtree(left_by_a_killed_run)
        half.mkdir(parents=True)
    comm.synchronize()
    if not half.is_dir():
        raise FileNotFoundError(
            f"{target.parent}: not shared by the machines of this run, but predictions are saved "
            "there; set OUTPUT_DIR to a folder that all see, or TEST.SAVE_PREDICTIONS to False"
        )
    return half


def finish(half: Path, target: Path) -> bool:
    """Let the folder be `target`, in place of an earlier one. Only the main process calls this.

    Returns:
        whether there was an earlier one.
    """
    if not target.exists():
        os.replace(half, target)
        return False
    earlier = half.with_name(f"{half.name}_earlier")  # goes with the half ones if this is killed
    os.replace(target, earlier)
    os.replace(half, target)
    shutil.rmtree(earlier)
    return True
