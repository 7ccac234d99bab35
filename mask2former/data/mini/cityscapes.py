"""Small drawn streets in the layout of Cityscapes' downloads."""

import json
import logging
import os
from functools import partial
from pathlib import Path

import numpy as np
from cityscapesscripts.preparation.json2instanceImg import createInstanceImage
from cityscapesscripts.preparation.json2labelImg import createLabelImage
from PIL import Image

from mask2former.data.mini.maker import MiniSpec, make_mini, save_picture
from mask2former.data.mini.street.scene import Scene, draw_scene
from mask2former.data.prepare.cityscapes import prepare_cityscapes, read_annotation

logger = logging.getLogger(__name__)

# As in Cityscapes, no city is in two splits.
CITIES = {
    "train": ("alderbrook", "birchwood", "cedarville", "elmstead"),
    "val": ("hazelton", "juniper"),
    "test": ("rowanburg",),
}

DEFAULT_SPEC = MiniSpec(height=256, width=512, num_train=64, num_val=12)
NUM_TEST = 4


def make_mini_cityscapes(
    root: str | Path, spec: MiniSpec = DEFAULT_SPEC, show_progress: bool = True
) -> None:
    """Draw the pictures and ground truth that Cityscapes' downloads would hold into `root`.

    What training reads besides is added by `prepare_cityscapes`, as with the real one.

    Raises:
        FileExistsError: `root` is there already.
    """
    make_mini(
        Path(root),
        spec,
        _write,
        lambda directory: None,
        show_progress,
        draw=draw_scene,
        num_test=NUM_TEST,
    )


def ensure_mini_cityscapes(
    root: str | Path,
    spec: MiniSpec = DEFAULT_SPEC,
    show_progress: bool = True,
    num_test: int = NUM_TEST,
) -> None:
    """Make and prepare mini Cityscapes in `root` unless it is there.

    Several processes may ask at once: one makes it, the others wait until it is whole.

    Args:
        num_test: pictures of a split for testing.

    Raises:
        FileExistsError: `root` is there, but no directory.
    """
    root = Path(root)
    if root.is_dir():
        return
    if os.path.lexists(root):
        raise FileExistsError(f"{root}: is no directory; delete it, and it will be drawn")
    logger.info(f"{root} is not there; drawing mini Cityscapes")
    make_mini(
        root,
        spec,
        _write,
        partial(prepare_cityscapes, show_progress=show_progress),
        show_progress,
        draw=draw_scene,
        num_test=num_test,
        keep=True,
    )


def _write(root: Path, split: str, number: int, scene: Scene) -> None:
    """leftImg8bit/SPLIT/CITY/*.png and gtFine/SPLIT/CITY/*"""
    cities = CITIES[split]
    city = cities[(number - 1) % len(cities)]
    stem = f"{city}_{(number - 1) // len(cities):06d}_000019"
    save_picture(scene.image, root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png")
    gt_dir = root / "gtFine" / split / city
    gt_dir.mkdir(parents=True, exist_ok=True)
    height, width = scene.image.shape[:2]
    annotation = {
        "imgHeight": height,
        "imgWidth": width,
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
