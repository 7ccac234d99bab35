"""From unpacked Cityscapes to what training reads: labelTrainIds and panoptic PNGs and JSONs.

The definitions are cityscapesscripts' own: its functions draw and convert, this file feeds them
in parallel, keeps what is done already, and never leaves half a file.
"""

import contextlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from cityscapesscripts.helpers.annotation import Annotation
from cityscapesscripts.helpers.labels import name2label
from cityscapesscripts.preparation.createPanopticImgs import convert2panoptic
from cityscapesscripts.preparation.json2labelImg import createLabelImage

from mask2former.data.files import atomic_file, for_each, is_whole_png

POLYGONS = "_gtFine_polygons.json"
INSTANCE_IDS = "_gtFine_instanceIds.png"
SPLITS = ("train", "val", "test")
PANOPTIC_SPLITS = ("train", "val")  # the labels of test are not public


def prepare_cityscapes(root: str | Path, num_workers: int = 1, show_progress: bool = True) -> None:
    """Write *_labelTrainIds.png, cityscapes_panoptic_{train,val}/ and their JSONs under gtFine.

    Outputs that are there and whole are kept, so an interrupted run is simply started again.

    Args:
        root: the directory with leftImg8bit/ and gtFine/.
        num_workers: processes; 1 works in this one.

    Raises:
        FileNotFoundError: there is no ground truth, or no instanceIds for some polygons.
        ValueError: a file of the download is broken or holds an unknown label.
    """
    gt_dir = Path(root) / "gtFine"
    if not gt_dir.is_dir():
        raise FileNotFoundError(
            f"{gt_dir}: no such directory; unpack gtFine_trainvaltest.zip in {root}"
        )
    polygons = sorted(path for split in SPLITS for path in gt_dir.glob(f"{split}/*/*{POLYGONS}"))
    if not polygons:
        raise FileNotFoundError(
            f"{gt_dir}: no {{{','.join(SPLITS)}}}/CITY/*{POLYGONS} in it; "
            f"unpack gtFine_trainvaltest.zip in {root}"
        )
    run = partial(for_each, num_workers=num_workers, show_progress=show_progress)
    missing = [path for path in polygons if not is_whole_png(_train_ids_file(path))]
    run(write_train_ids, missing, "labelTrainIds", kept=len(polygons) - len(missing))
    for split in PANOPTIC_SPLITS:
        of_split = [path for path in polygons if path.parents[1] == gt_dir / split]
        if of_split:
            _prepare_panoptic(gt_dir / f"cityscapes_panoptic_{split}", of_split, run)


def write_train_ids(polygons: Path) -> None:
    """Draw *_labelTrainIds.png beside a polygons JSON.

    Raises:
        ValueError: the JSON is broken or names a label that Cityscapes does not have.
    """
    annotation = read_annotation(polygons)
    with atomic_file(_train_ids_file(polygons)) as temporary:
        createLabelImage(annotation, "trainIds").save(temporary, format="PNG")


def read_annotation(polygons: Path) -> Annotation:
    """The polygons of one picture, checked so far that cityscapesscripts does not stumble.

    Raises:
        ValueError: the JSON is broken or names a label that Cityscapes does not have.
    """
    annotation = Annotation()
    try:
        annotation.fromJsonText(polygons.read_text(encoding="utf-8"))
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ValueError(
            f"{polygons}: not a polygons file of Cityscapes ({error!r}); unpack it again"
        ) from error
    # cityscapesscripts ends the process on a label that it does not know.
    for label in {entry.label for entry in annotation.objects}:
        if label not in name2label and label.removesuffix("group") not in name2label:
            raise ValueError(
                f"{polygons}: label {label!r} is none of Cityscapes'; correct or unpack it again"
            )
    return annotation


def write_panoptic(instance_ids: Path, pictures: Path, entries: Path) -> None:
    """Convert one *_instanceIds.png to PICTURES/*_panoptic.png and ENTRIES/*_panoptic.json.

    cityscapesscripts converts whole splits only, so it is shown a split of this one picture.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the picture is broken.
    """
    if not instance_ids.is_file():
        raise FileNotFoundError(
            f"{instance_ids}: no such file; unpack gtFine_trainvaltest.zip again"
        )
    with tempfile.TemporaryDirectory(prefix=".one_", dir=entries) as temporary:
        city = Path(temporary) / "one" / "city"
        city.mkdir(parents=True)
        (city / instance_ids.name).symlink_to(instance_ids.resolve())
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                convert2panoptic(temporary, temporary, setNames=["one"])
        except (OSError, SyntaxError, KeyError) as error:
            raise ValueError(
                f"{instance_ids}: not a whole picture of instance ids ({error!r}); unpack it again"
            ) from error
        name = _panoptic_name(instance_ids)
        made = Path(temporary) / "cityscapes_panoptic_one"
        os.replace(made.with_suffix(".json"), (entries / name).with_suffix(".json"))
        os.replace(made / name, pictures / name)


def _prepare_panoptic(target: Path, polygons: Sequence[Path], run: Callable[..., None]) -> None:
    """Make `target`/*_panoptic.png and then `target`.json, which says that all are there.

    Until then each picture's entry of the JSON waits in a file of its own beside `target`.
    """
    final_json = target.with_suffix(".json")
    instance_ids = [
        path.with_name(path.name.removesuffix(POLYGONS) + INSTANCE_IDS) for path in polygons
    ]
    pictures = [target / _panoptic_name(path) for path in instance_ids]
    if _lists_all(final_json, pictures) and all(map(is_whole_png, pictures)):
        return
    entries = target.with_name(f".{target.name}.entries")
    entries.mkdir(exist_ok=True)
    target.mkdir(exist_ok=True)
    entry_files = [(entries / picture.name).with_suffix(".json") for picture in pictures]
    missing = [
        source
        for source, picture, entry in zip(instance_ids, pictures, entry_files)
        if not (entry.is_file() and is_whole_png(picture))
    ]
    run(
        partial(write_panoptic, pictures=target, entries=entries),
        missing,
        target.name,
        kept=len(instance_ids) - len(missing),
    )
    contents = [json.loads(path.read_text()) for path in entry_files]
    merged = {
        "annotations": [entry for content in contents for entry in content["annotations"]],
        "categories": contents[0]["categories"],
        "images": [entry for content in contents for entry in content["images"]],
    }
    with atomic_file(final_json) as temporary:
        temporary.write_text(json.dumps(merged, sort_keys=True, indent=4))
    shutil.rmtree(entries)


def _lists_all(panoptic_json: Path, pictures: Iterable[Path]) -> bool:
    if not panoptic_json.is_file():
        return False
    try:
        annotations = json.loads(panoptic_json.read_text())["annotations"]
    except (ValueError, KeyError):  # cut off by whatever wrote it before us
        return False
    return {entry["file_name"] for entry in annotations} == {path.name for path in pictures}


def _train_ids_file(polygons: Path) -> Path:
    return polygons.with_name(polygons.name.replace("_polygons.json", "_labelTrainIds.png"))


def _panoptic_name(instance_ids: Path) -> str:
    return instance_ids.name.replace("_instanceIds.png", "_panoptic.png")
