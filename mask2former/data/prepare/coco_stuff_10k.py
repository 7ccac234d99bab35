"""From COCO-Stuff-10k's MATLAB files to pictures and label maps by split.

Version 1.0, of which the published numbers are, counts its classes from 2 (1: unlabelled) in HDF5
files (MATLAB 7.3). Version 1.1 has COCO-Stuff's ids (0: unlabelled) in MATLAB 5 files.
"""

import importlib.util
import shutil
import zlib
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image
from scipy.io.matlab import MatReadError

from mask2former.data.datasets.coco_stuff_10k import CLASSES, IDS, IGNORE_LABEL
from mask2former.data.files import for_each
from mask2former.files import atomic_file, is_whole_png, open_picture

SPLITS = ("test", "train")
AGAIN = "unpack cocostuff-10k-v1.0.zip again"

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_MATLAB_HEADER = 512  # bytes before the signature in a MATLAB 7.3 file

# label of the file -> class
_CLASSES_OF_V1_0 = {1: IGNORE_LABEL, **{i + 2: i for i in range(len(CLASSES))}}
_CLASSES_OF_V1_1 = {0: IGNORE_LABEL, **IDS}

# What h5py and scipy raise on damaged bytes; the last if there is a header only.
_BROKEN = (
    OSError,
    LookupError,
    ValueError,
    TypeError,
    MatReadError,
    zlib.error,
    NotImplementedError,
)

Job = tuple[Path, str, str]  # root, split, name without extension


def prepare_coco_stuff_10k(
    root: str | Path, num_workers: int = 1, show_progress: bool = True
) -> None:
    """Write images_detectron2/SPLIT/*.jpg and annotations_detectron2/SPLIT/*.png for both splits.

    What is there and whole is kept, so an interrupted run is simply started again.

    Args:
        root: the directory with images/, annotations/ and imageLists/.
        num_workers: processes; 1 works in this one.

    Raises:
        FileNotFoundError: a list, or a file of a list, is missing.
        ValueError: a file is broken, or h5py is needed to read it.
    """
    root = Path(root)
    names = {split: _read_list(root, split) for split in SPLITS}
    for split in SPLITS:
        for kind in ("images", "annotations"):
            (root / f"{kind}_detectron2" / split).mkdir(parents=True, exist_ok=True)
        for_each(
            prepare_picture,
            [(root, split, name) for name in names[split]],
            f"annotations_detectron2/{split}",
            is_done=_is_done,
            num_workers=num_workers,
            show_progress=show_progress,
        )


def prepare_picture(job: Job) -> None:
    """Copy one picture into its split and write its label map.

    Raises:
        FileNotFoundError: the picture or its annotation is missing.
        ValueError: one is broken, they differ in size, or h5py is needed.
    """
    root, _, name = job
    image, annotation = root / "images" / f"{name}.jpg", root / "annotations" / f"{name}.mat"
    label_map = read_label_map(annotation)
    with open_picture(image, AGAIN) as picture:
        if label_map.shape != (picture.height, picture.width):
            raise ValueError(
                f"{annotation}: labels of {label_map.shape[0]}x{label_map.shape[1]} for a picture "
                f"of {picture.height}x{picture.width}; {AGAIN}"
            )
    image_target, label_target = _targets(job)
    with atomic_file(image_target) as temporary:
        shutil.copyfile(image, temporary)
    with atomic_file(label_target) as temporary:
        Image.fromarray(label_map).save(temporary, format="PNG")


def read_label_map(path: Path) -> np.ndarray:
    """The classes of one MATLAB file of either version: (H,W) uint8 of 0..170, 255 unlabelled.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is broken, has unknown labels, or h5py is needed to read it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; {AGAIN}")
    with path.open("rb") as file:
        file.seek(_MATLAB_HEADER)
        is_hdf5 = file.read(len(_HDF5_SIGNATURE)) == _HDF5_SIGNATURE
    if is_hdf5 and importlib.util.find_spec("h5py") is None:
        raise ValueError(
            f"{path}: an HDF5 file (MATLAB 7.3), for which h5py is needed; pip install h5py"
        )
    try:
        if is_hdf5:
            labels, classes = _read_hdf5(path), _CLASSES_OF_V1_0
        else:
            labels, classes = scipy.io.loadmat(path, variable_names="S")["S"], _CLASSES_OF_V1_1
    except _BROKEN as error:
        raise ValueError(f"{path}: not a whole MATLAB file ({error!r}); {AGAIN}") from error
    found, pixels = np.unique(labels, return_inverse=True)
    unknown = sorted(set(found.tolist()) - classes.keys())
    if unknown:
        raise ValueError(f"{path}: label {unknown[0]:g}, which COCO-Stuff does not have; {AGAIN}")
    table = np.array([classes[label] for label in found.tolist()], np.uint8)
    return table[pixels.reshape(labels.shape)]


def _read_hdf5(path: Path) -> np.ndarray:
    import h5py  # an extra, for this one dataset

    with h5py.File(path, "r") as file:
        return np.asarray(file["S"]).T  # MATLAB stores columns first


def _read_list(root: Path, split: str) -> list[str]:
    path = root / "imageLists" / f"{split}.txt"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; unpack cocostuff-10k-v1.0.zip so that {root} holds images/, "
            "annotations/ and imageLists/"
        )
    names = path.read_text(encoding="utf-8").split()
    if not names:
        raise ValueError(f"{path}: no names in it; {AGAIN}")
    return names


def _targets(job: Job) -> tuple[Path, Path]:
    root, split, name = job
    return (
        root / "images_detectron2" / split / f"{name}.jpg",
        root / "annotations_detectron2" / split / f"{name}.png",
    )


def _is_done(job: Job) -> bool:
    image, label_map = _targets(job)
    return image.is_file() and is_whole_png(label_map)
