"""Preparing ADE20K with 847 classes: sizes, ids of 16 bit, kills, and what is broken."""

from pathlib import Path

import numpy as np
import pytest
from killed_runs import run_until_killed
from PIL import Image

from mask2former.data.datasets.ade20k_full import CLASSES
from mask2former.data.prepare import ade20k_full as full_prepare
from mask2former.data.prepare.ade20k_full import prepare_ade20k_full

PICTURES = {
    "training/urban/street/ADE_train_00000001": (40, 30),
    "training/nature/a/b/ADE_frame_00000002": (600, 901),
    "validation/home/ADE_val_00000001": (1027, 514),
}
OUTPUTS = {
    "training/ADE_train_00000001": (40, 30),
    "training/ADE_frame_00000002": (512, 769),
    "validation/ADE_val_00000001": (1023, 512),
}


def _write(stem: Path, height: int, width: int, ids: np.ndarray) -> None:
    """A picture and its *_seg.png, in which the remainder of red by 10 says nothing."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), 100, np.uint8)).save(f"{stem}.jpg")
    colors = np.stack([ids // 256 * 10 + ids % 10, ids % 256, np.ones_like(ids)], -1)
    Image.fromarray(colors.astype(np.uint8)).save(f"{stem}_seg.png")
    stem.mkdir()  # of the masks of parts, which are not pictures to train on
    Image.new("L", (2, 2)).save(stem / "instance_000_ADE.jpg")


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "ADE20K_2021_17_01"
    for stem, (height, width) in PICTURES.items():
        ids = np.zeros((height, width), int)
        ids[:, : width // 2] = 2978  # a wall
        ids[: height // 4, width // 2 :] = CLASSES[-1]["id"]
        ids[-height // 4 :, width // 2 :] = 2  # a class that is not among the 847
        _write(root / "images/ADE" / stem, height, width, ids)
    return root


def _files(root: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(root)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(root.glob("*_detectron2/*/*"))
    }


@pytest.mark.parametrize("num_workers", [1, 2])
def test_pictures_are_smaller_and_labels_have_16_bit(root, num_workers):
    prepare_ade20k_full(root, num_workers, show_progress=False)
    assert len(_files(root)) == 2 * len(OUTPUTS)
    for stem, size in OUTPUTS.items():
        assert Image.open(root / f"images_detectron2/{stem}.jpg").size == size[::-1]
        labels = np.asarray(Image.open(root / f"annotations_detectron2/{stem}.tif"))
        assert labels.dtype == np.uint16 and labels.shape == size
        height, width = size
        assert (labels[:, : width // 2 - 1] == 0).all()
        assert (labels[: height // 4 - 1, width // 2 + 1 :] == 846).all()
        assert (labels[height // 2 :, width // 2 + 1 :] == 65535).all()


def test_a_grey_picture_stays_grey(root):
    path = root / "images/ADE/validation/home/ADE_val_00000001.jpg"
    Image.open(path).convert("L").save(path)
    prepare_ade20k_full(root, show_progress=False)
    made = Image.open(root / "images_detectron2/validation/ADE_val_00000001.jpg")
    assert made.mode == "L" and made.size == (512, 1023)


def test_a_killed_run_goes_on_where_it_was(root):
    run_until_killed(
        lambda: prepare_ade20k_full(root, show_progress=False), full_prepare, "write_smaller", 1
    )
    before = _files(root)
    assert len(before) == 2
    prepare_ade20k_full(root, show_progress=False)
    after = _files(root)
    assert len(after) == 6 and {name: after[name] for name in before} == before
    prepare_ade20k_full(root, show_progress=False)
    assert _files(root) == after


def test_files_cut_off_are_made_again(root):
    prepare_ade20k_full(root, show_progress=False)
    before = {name: content for name, (_, content) in _files(root).items()}
    for name, kept in (
        ("images_detectron2/training/ADE_train_00000001.jpg", 300),
        ("annotations_detectron2/training/ADE_frame_00000002.tif", 5000),
        ("annotations_detectron2/validation/ADE_val_00000001.tif", 4),
    ):
        (root / name).write_bytes(before[name][:kept])
    prepare_ade20k_full(root, show_progress=False)
    assert {name: content for name, (_, content) in _files(root).items()} == before


def test_what_is_broken_is_named(root, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"ADE: no ADE_\*.jpg in it; unpack ADE20K_2021"):
        prepare_ade20k_full(tmp_path / "elsewhere")
    picture = root / "images/ADE/training/urban/street/ADE_train_00000001.jpg"
    labels = picture.with_name("ADE_train_00000001_seg.png")
    Image.new("RGB", (30, 41)).save(labels)
    with pytest.raises(ValueError, match=rf"{picture}: 40x30 pixels, and its .* has 41x30; unpa"):
        prepare_ade20k_full(root, show_progress=False)
    Image.new("L", (30, 40)).save(labels)
    with pytest.raises(ValueError, match=rf"{labels}: holds uint8 of shape \(40, 30\), and \*_seg"):
        prepare_ade20k_full(root, show_progress=False)
    labels.write_bytes(labels.read_bytes()[:36])
    with pytest.raises(ValueError, match=rf"{labels}: not a whole picture"):
        prepare_ade20k_full(root, show_progress=False)
    labels.unlink()
    with pytest.raises(FileNotFoundError, match=rf"{labels}: no such file; unpack ADE20K_2021"):
        prepare_ade20k_full(root, show_progress=False)
