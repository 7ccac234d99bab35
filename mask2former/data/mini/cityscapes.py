"""Writes the drawn streets to disk in the layout of Cityscapes."""

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cityscapesscripts.preparation.json2instanceImg import createInstanceImage
from cityscapesscripts.preparation.json2labelImg import createLabelImage
from PIL import Image
from tqdm import tqdm

from mask2former.data.files import all_or_nothing, lock
from mask2former.data.mini.street.scene import draw_scene
from mask2former.data.prepare.cityscapes import prepare_cityscapes, read_annotation

logger = logging.getLogger(__name__)

# As in Cityscapes, no city is in two splits.
CITIES = {
    "train": ("alderbrook", "birchwood", "cedarville", "elmstead"),
    "val": ("hazelton", "juniper"),
    "test": ("rowanburg",),
}


MIN_SIZE = 32  # of a picture's sides; a street needs some room


@dataclass(frozen=True)
class MiniSpec:
    """What is drawn. The same spec gives the same files, to the byte."""

    height: int = 256
    width: int = 512
    num_train: int = 64
    num_val: int = 12
    num_test: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.height, self.width) < MIN_SIZE:
            raise ValueError(
                f"pictures of {self.height}x{self.width}; draw them {MIN_SIZE}x{MIN_SIZE} or larger"
            )
        if min(self.num_train, self.num_val, self.num_test, self.seed) < 0:
            raise ValueError(f"a negative number in {self}; give 0 or more")


def make_mini_cityscapes(
    root: str | Path, spec: MiniSpec = MiniSpec(), show_progress: bool = True
) -> None:
    """Draw the pictures and ground truth that Cityscapes' downloads would hold into `root`.

    What training reads besides is added by `prepare_cityscapes`, as with the real one.

    Raises:
        FileExistsError: `root` is there already.
    """
    with lock(Path(root)):
        if os.path.lexists(root):
            raise FileExistsError(f"{root}: is there already; delete it, or name another directory")
        with all_or_nothing(Path(root)) as directory:
            _draw_all(directory, spec, show_progress)


def ensure_mini_cityscapes(
    root: str | Path, spec: MiniSpec = MiniSpec(), show_progress: bool = True
) -> None:
    """Make and prepare mini Cityscapes in `root` unless it is there.

    Several processes may ask at once: one makes it, the others wait until it is whole.

    Raises:
        FileExistsError: `root` is there, but no directory.
    """
    root = Path(root)
    if root.is_dir():
        return
    if os.path.lexists(root):
        raise FileExistsError(f"{root}: is no directory; delete it, and it will be drawn")
    with lock(root):
        if root.is_dir():
            return
        logger.info(f"{root} is not there; drawing mini Cityscapes")
        with all_or_nothing(root) as directory:
            _draw_all(directory, spec, show_progress)
            prepare_cityscapes(directory, show_progress=show_progress)


def _draw_all(root: Path, spec: MiniSpec, show_progress: bool) -> None:
    counts = {"train": spec.num_train, "val": spec.num_val, "test": spec.num_test}
    jobs = [
        (split, number, index)
        for number, split in enumerate(counts)
        for index in range(counts[split])
    ]
    for split, number, index in tqdm(
        jobs, desc="drawing streets", unit="picture", disable=not show_progress
    ):
        cities = CITIES[split]
        city = cities[index % len(cities)]
        stem = f"{city}_{index // len(cities):06d}_000019"
        _draw_one(root, split, city, stem, spec, (spec.seed, number, index))


def _draw_one(
    root: Path, split: str, city: str, stem: str, spec: MiniSpec, seed: tuple[int, ...]
) -> None:
    image_dir, gt_dir = root / "leftImg8bit" / split / city, root / "gtFine" / split / city
    image_dir.mkdir(parents=True, exist_ok=True)
    gt_dir.mkdir(parents=True, exist_ok=True)
    scene = draw_scene(spec.height, spec.width, seed)
    Image.fromarray(scene.image).save(image_dir / f"{stem}_leftImg8bit.png")
    annotation = {
        "imgHeight": spec.height,
        "imgWidth": spec.width,
        "objects": [{"label": label, "polygon": polygon} for label, polygon in scene.objects],
    }
    polygons = gt_dir / f"{stem}_gtFine_polygons.json"
    polygons.write_text(json.dumps(annotation), encoding="utf-8")
    drawn = read_annotation(polygons)
    for suffix, picture in (
        ("labelIds", createLabelImage(drawn, "ids")),
        ("color", createLabelImage(drawn, "color")),
        ("instanceIds", _as_16_bit(createInstanceImage(drawn, "ids"))),
    ):
        picture.save(gt_dir / f"{stem}_gtFine_{suffix}.png")


def _as_16_bit(picture: Image.Image) -> Image.Image:
    """Instance ids are drawn with 32 bits, which a PNG does not have (Pillow 13 refuses)."""
    return Image.fromarray(np.asarray(picture).astype(np.uint16))
