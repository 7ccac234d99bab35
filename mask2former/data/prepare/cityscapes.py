"""From unpacked Cityscapes to what training reads: labelTrainIds and panoptic PNGs and JSONs.

The definitions are cityscapesscripts' own: its functions draw and convert, this file feeds them
in parallel, keeps what is done already, and never leaves half a file.
"""

import contextlib
import io
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from cityscapesscripts.helpers.annotation import Annotation
from cityscapesscripts.helpers.labels import name2label
from cityscapesscripts.preparation.createPanopticImgs import convert2panoptic
from cityscapesscripts.preparation.json2labelImg import createLabelImage

from mask2former.data.files import for_each
from mask2former.data.prepare.entries import make_json
from mask2former.files import atomic_file, is_whole_png

ARCHIVE = "gtFine_trainvaltest.zip"
POLYGONS = "_gtFine_polygons.json"
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
        raise FileNotFoundError(f"{gt_dir}: no such directory; unpack {ARCHIVE} in {root}")
    polygons = sorted(path for split in SPLITS for path in gt_dir.glob(f"{split}/*/*{POLYGONS}"))
    if not polygons:
        raise FileNotFoundError(
            f"{gt_dir}: no {{{','.join(SPLITS)}}}/CITY/*{POLYGONS} in it; "
            f"unpack {ARCHIVE} in {root}"
        )
    run = partial(for_each, num_workers=num_workers, show_progress=show_progress)
    run(write_train_ids, polygons, "labelTrainIds", is_done=_has_train_ids)
    for split in PANOPTIC_SPLITS:
        instance_ids = {
            path.name.removesuffix(POLYGONS): _instance_ids(path)
            for path in polygons
            if path.parents[1] == gt_dir / split
        }
        if not instance_ids:
            continue
        pngs = gt_dir / f"cityscapes_panoptic_{split}"
        pngs.mkdir(exist_ok=True)
        make_json(
            pngs.with_suffix(".json"),
            instance_ids,
            partial(panoptic_entry, pngs=pngs),
            merge_panoptic,
            run,
            has_files=partial(_has_png, pngs=pngs),
        )


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
            f"{polygons}: not a polygons file of Cityscapes ({error!r}); unpack {ARCHIVE} again"
        ) from error
    # cityscapesscripts ends the process on a label that it does not know.
    for label in {entry.label for entry in annotation.objects}:
        if label not in name2label and label.removesuffix("group") not in name2label:
            raise ValueError(
                f"{polygons}: label {label!r} is none of Cityscapes'; unpack {ARCHIVE} again"
            )
    return annotation


def panoptic_entry(instance_ids: Path, pngs: Path) -> dict:
    """From one *_instanceIds.png to its part of the panoptic JSON; writes PNGS/*_panoptic.png.

    cityscapesscripts converts whole splits only, so it is shown a split of this one picture.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the picture is broken.
    """
    if not instance_ids.is_file():
        raise FileNotFoundError(f"{instance_ids}: no such file; unpack {ARCHIVE} again")
    with tempfile.TemporaryDirectory() as directory:
        city = Path(directory) / "one" / "city"
        city.mkdir(parents=True)
        (city / instance_ids.name).symlink_to(instance_ids.resolve())
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                convert2panoptic(directory, directory, setNames=["one"])
        except (OSError, SyntaxError, KeyError) as error:
            raise ValueError(
                f"{instance_ids}: not a whole picture of instance ids ({error!r}); unpack "
                f"{ARCHIVE} again"
            ) from error
        made = Path(directory) / "cityscapes_panoptic_one"
        png = _panoptic_png(instance_ids, pngs)
        with atomic_file(png) as temporary:
            shutil.copyfile(made / png.name, temporary)
        return json.loads(made.with_suffix(".json").read_text())


def merge_panoptic(entries: Sequence[Mapping[str, list]]) -> dict[str, list]:
    """The content of the JSON from all `panoptic_entry`."""
    return {
        "images": [image for entry in entries for image in entry["images"]],
        "annotations": [annotation for entry in entries for annotation in entry["annotations"]],
        "categories": entries[0]["categories"],
    }


def _train_ids_file(polygons: Path) -> Path:
    return polygons.with_name(polygons.name.replace("_polygons.json", "_labelTrainIds.png"))


def _has_train_ids(polygons: Path) -> bool:
    return is_whole_png(_train_ids_file(polygons))


def _instance_ids(polygons: Path) -> Path:
    return polygons.with_name(polygons.name.replace("_polygons.json", "_instanceIds.png"))


def _panoptic_png(instance_ids: Path, pngs: Path) -> Path:
    return pngs / instance_ids.name.replace("_instanceIds.png", "_panoptic.png")


def _has_png(instance_ids: Path, pngs: Path) -> bool:
    return is_whole_png(_panoptic_png(instance_ids, pngs))
