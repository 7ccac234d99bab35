"""From COCO's panoptic segments to label maps: panoptic_semseg_* and panoptic_stuff_*."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from panopticapi.utils import rgb2id
from PIL import Image

from mask2former.data.datasets.coco import ALL_IDS, IGNORE_LABEL, STUFF_APART_IDS, THING_IDS
from mask2former.data.datasets.panoptic_json import read_panoptic_json
from mask2former.data.files import for_each
from mask2former.files import atomic_file, is_whole_png, open_picture

SPLITS = ("val2017", "train2017")
AGAIN = "unpack panoptic_annotations_trainval2017.zip and the archives in it again"
STUFF_OR_ANY_THING = {**dict.fromkeys(THING_IDS, 0), **STUFF_APART_IDS}

Job = tuple[Path, Path, dict[int, int]]  # segments' PNG, label map, segment id -> category id


def prepare_coco_semantic(
    root: str | Path, num_workers: int = 1, show_progress: bool = True
) -> None:
    """Write panoptic_semseg_SPLIT/*.png: the 133 classes, 255 where no segment is.

    Of the splits, those are prepared whose JSON is there. What is there and whole is kept, so an
    interrupted run is simply started again.

    Args:
        root: the directory with annotations/ and panoptic_{train,val}2017/.
        num_workers: processes; 1 works in this one.

    Raises:
        FileNotFoundError: neither split has a JSON, or a PNG is missing.
        ValueError: a file is broken, or a segment is of a category that COCO does not have.
    """
    _prepare(Path(root), "semseg", ALL_IDS, num_workers, show_progress)


def prepare_coco_stuff(root: str | Path, num_workers: int = 1, show_progress: bool = True) -> None:
    """Write panoptic_stuff_SPLIT/*.png: 0 for all things, 1... the stuff classes, 255 the rest.

    Otherwise as `prepare_coco_semantic`.
    """
    _prepare(Path(root), "stuff", STUFF_OR_ANY_THING, num_workers, show_progress)


def write_label_map(job: Job, class_ids: Mapping[int, int]) -> None:
    """Convert the segments of one picture.

    Args:
        class_ids: category id -> class in the label map.

    Raises:
        FileNotFoundError: there is no PNG of segments.
        ValueError: it is broken or has no colours, or a category is none of `class_ids`.
    """
    source, target, categories = job
    with open_picture(source, AGAIN) as picture:
        if picture.mode not in ("RGB", "RGBA"):
            raise ValueError(
                f"{source}: a picture of mode {picture.mode}, but segment ids are RGB; {AGAIN}"
            )
        segment_ids = rgb2id(np.asarray(picture)[..., :3])  # (H,W)
    unknown = sorted(set(categories.values()) - class_ids.keys())
    if unknown:
        raise ValueError(
            f"{source}: a segment of category {unknown[0]}, which COCO does not have; "
            "its JSON belongs to another dataset"
        )
    classes_of_segments = {i: class_ids[category] for i, category in categories.items()}
    found, pixels = np.unique(segment_ids, return_inverse=True)
    classes = [classes_of_segments.get(i, IGNORE_LABEL) for i in found.tolist()]
    label_map = np.array(classes, np.uint8)[pixels.reshape(segment_ids.shape)]
    with atomic_file(target) as temporary:
        Image.fromarray(label_map).save(temporary, format="PNG")


def _prepare(
    root: Path, kind: str, class_ids: Mapping[int, int], num_workers: int, show_progress: bool
) -> None:
    jsons = {split: root / "annotations" / f"panoptic_{split}.json" for split in SPLITS}
    there = [split for split in SPLITS if jsons[split].is_file()]
    if not there:
        raise FileNotFoundError(
            f"{jsons[SPLITS[0]]}: no such file; unpack panoptic_annotations_trainval2017.zip and "
            f"the archives in it in {root}"
        )
    for split in there:
        target = root / f"panoptic_{kind}_{split}"
        target.mkdir(exist_ok=True)
        annotations, _ = read_panoptic_json(jsons[split], AGAIN)
        jobs = [
            (
                root / f"panoptic_{split}" / entry["file_name"],
                target / entry["file_name"],
                {segment["id"]: segment["category_id"] for segment in entry["segments_info"]},
            )
            for entry in annotations
        ]
        for_each(
            partial(write_label_map, class_ids=class_ids),
            jobs,
            target.name,
            is_done=lambda job: is_whole_png(job[1]),
            num_workers=num_workers,
            show_progress=show_progress,
        )
