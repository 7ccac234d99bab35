"""From unpacked ADE20K (150 classes) to what training reads: label maps, JSONs, panoptic PNGs."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from PIL import Image

from mask2former.data.datasets.ade20k import SPLITS
from mask2former.data.files import for_each
from mask2former.data.prepare.ade20k_entries import (
    ARCHIVE,
    instance_entry,
    merge_instances,
    merge_panoptic,
    panoptic_entry,
    read_labels,
)
from mask2former.data.prepare.entries import make_json
from mask2former.files import atomic_file, is_whole_png


def prepare_ade20k_semantic(
    root: str | Path, num_workers: int = 1, show_progress: bool = True
) -> None:
    """Write annotations_detectron2/: class indices 0..149, and 255 for what nobody labelled.

    Outputs that are there and whole are kept, so an interrupted run is simply started again.

    Args:
        root: the directory with annotations/.
        num_workers: processes; 1 works in this one.

    Raises:
        FileNotFoundError: there are no label maps.
        ValueError: one of them is broken or of another dataset.
    """
    labels = [path for _, paths in _splits(Path(root), "annotations", ".png") for path in paths]
    for directory in {_index_file(path).parent for path in labels}:
        directory.mkdir(parents=True, exist_ok=True)
    for_each(
        write_indices,
        labels,
        "annotations_detectron2",
        is_done=_has_indices,
        num_workers=num_workers,
        show_progress=show_progress,
    )


def prepare_ade20k_instances(
    root: str | Path, num_workers: int = 1, show_progress: bool = True
) -> None:
    """Write ade20k_instance_{train,val}.json in COCO's format, of 100 classes.

    What is there and whole is kept, down to the part of each picture.

    Args:
        root: the directory with images/ and annotations_instance/.
        num_workers: processes; 1 works in this one.

    Raises:
        FileNotFoundError: there are no pictures, or some without instances.
        ValueError: a file is broken or of another dataset.
    """
    run = partial(for_each, num_workers=num_workers, show_progress=show_progress)
    for split, pictures in _splits(Path(root), "images", ".jpg"):
        target = Path(root) / f"ade20k_instance_{split}.json"
        make_json(target, _by_id(pictures), instance_entry, merge_instances, run)


def prepare_ade20k_panoptic(
    root: str | Path, num_workers: int = 1, show_progress: bool = True
) -> None:
    """Write ade20k_panoptic_{train,val}/*.png and .json in COCO's panoptic format, 150 classes.

    What is there and whole is kept, down to the part of each picture.

    Args:
        root: the directory with images/, annotations/ and annotations_instance/.
        num_workers: processes; 1 works in this one.

    Raises:
        FileNotFoundError: there are no pictures, or some without labels or instances.
        ValueError: a file is broken or of another dataset.
    """
    run = partial(for_each, num_workers=num_workers, show_progress=show_progress)
    for split, pictures in _splits(Path(root), "images", ".jpg"):
        pngs = Path(root) / f"ade20k_panoptic_{split}"
        pngs.mkdir(exist_ok=True)
        make_json(
            pngs.with_suffix(".json"),
            _by_id(pictures),
            partial(panoptic_entry, pngs=pngs),
            merge_panoptic,
            run,
            has_files=partial(_has_png, pngs=pngs),
        )


def write_indices(labels: Path) -> None:
    """Turn annotations/SPLIT/*.png, in which 0 is no class, into annotations_detectron2/SPLIT/.

    Raises:
        ValueError: the label map is broken or of another dataset.
    """
    indices = read_labels(labels) - 1  # of uint8: 0 becomes 255
    with atomic_file(_index_file(labels)) as temporary:
        Image.fromarray(indices).save(temporary, format="PNG")


def _splits(root: Path, kind: str, suffix: str) -> Iterator[tuple[str, list[Path]]]:
    """The splits that are there, and their files ROOT/KIND/SPLIT/*SUFFIX.

    Raises:
        FileNotFoundError: there is none, or one without files.
    """
    there = {
        split: root / kind / directory
        for split, directory in SPLITS.items()
        if (root / kind / directory).is_dir()
    }
    if not there:
        raise FileNotFoundError(
            f"{root / kind}: no {' or '.join(SPLITS.values())} in it; unpack {ARCHIVE} so that "
            f"{root} holds images/ and annotations/"
        )
    for split, directory in there.items():
        files = sorted(path for path in directory.glob(f"*{suffix}") if path.name[0] != ".")
        if not files:
            raise FileNotFoundError(f"{directory}: no *{suffix} in it; unpack {ARCHIVE} again")
        yield split, files


def _index_file(labels: Path) -> Path:
    return labels.parents[2] / "annotations_detectron2" / labels.parent.name / labels.name


def _has_indices(labels: Path) -> bool:
    return is_whole_png(_index_file(labels))


def _by_id(pictures: Sequence[Path]) -> dict[str, Path]:
    return {picture.stem: picture for picture in pictures}


def _has_png(picture: Path, pngs: Path) -> bool:
    return is_whole_png(pngs / f"{picture.stem}.png")
