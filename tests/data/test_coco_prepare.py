"""COCO's label maps say what its segments say; a run survives a kill and names what is broken."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
from killed_runs import run_until_killed
from panopticapi.utils import id2rgb
from PIL import Image

from mask2former.data.prepare import coco as coco_prepare
from mask2former.data.prepare import coco_stuff_10k as stuff_prepare
from mask2former.data.prepare.coco import prepare_coco_semantic, prepare_coco_stuff
from mask2former.data.prepare.coco_stuff_10k import prepare_coco_stuff_10k, read_label_map

IGNORE = 255
PREPARED = ("panoptic_semseg_*", "panoptic_stuff_*", "*_detectron2")


@pytest.fixture
def raw(mini_coco_root, tmp_path):
    """What the downloads hold, nothing prepared."""
    root = tmp_path / "coco"
    ignored = shutil.ignore_patterns(*PREPARED)
    shutil.copytree(mini_coco_root / "coco", root, ignore=ignored)
    return root


def _outputs(root: Path) -> dict[str, tuple[int, bytes]]:
    """Each output's time of writing and content."""
    return {
        str(path.relative_to(root)): (path.stat().st_mtime_ns, path.read_bytes())
        for pattern in PREPARED
        for path in root.rglob(f"{pattern}/**/*")
        if path.is_file()
    }


def _pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


# ids that need one, two and three channels, the largest of all, and the background
SEGMENT_IDS = np.array([[0, 1, 255, 256], [65535, 65536, 70000, 256**3 - 1], [0, 3, 3, 9]])
SEGMENTS = [
    {"id": 1, "category_id": 1},  # person
    {"id": 255, "category_id": 90, "iscrowd": 1},  # toothbrush, the last thing
    {"id": 256, "category_id": 92},  # banner, the first stuff
    {"id": 65535, "category_id": 13},  # stop sign: 12 does not exist
    {"id": 65536, "category_id": 200},  # rug, the last stuff
    {"id": 70000, "category_id": 1},
    {"id": 256**3 - 1, "category_id": 95},  # bridge: 94 does not exist
    {"id": 9, "category_id": 92},
    {"id": 1234, "category_id": 3},  # nowhere in the picture
]  # 3 is in the picture, but not among the segments


@pytest.fixture
def one_picture(tmp_path):
    """A validation set of one picture."""
    root = tmp_path / "coco"
    for folder in ("annotations", "panoptic_val2017"):
        (root / folder).mkdir(parents=True)
    Image.fromarray(id2rgb(SEGMENT_IDS)).save(root / "panoptic_val2017/000000000139.png")
    entry = {"image_id": 139, "file_name": "000000000139.png", "segments_info": SEGMENTS}
    _write_json(root, {"annotations": [entry]})
    return root


def _write_json(root: Path, content: dict) -> None:
    (root / "annotations/panoptic_val2017.json").write_text(json.dumps(content))


def test_large_ids_crowds_and_categories_with_gaps(one_picture):
    prepare_coco_semantic(one_picture, show_progress=False)
    prepare_coco_stuff(one_picture, show_progress=False)
    semantic = _pixels(one_picture / "panoptic_semseg_val2017/000000000139.png")
    stuff = _pixels(one_picture / "panoptic_stuff_val2017/000000000139.png")
    assert semantic.dtype == stuff.dtype == np.uint8
    assert semantic.tolist() == [[255, 0, 79, 80], [11, 132, 0, 82], [255, 255, 255, 80]]
    assert stuff.tolist() == [[255, 0, 0, 1], [0, 53, 0, 3], [255, 255, 255, 1]]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_only_the_splits_that_are_there(raw, num_workers, mini_coco_root):
    (raw / "annotations/panoptic_train2017.json").unlink()
    prepare_coco_semantic(raw, num_workers, show_progress=False)
    made = _outputs(raw)
    assert len(made) == 3
    before = _outputs(mini_coco_root / "coco")
    assert all(content == before[name][1] for name, (_, content) in made.items())


def _prepare_all(root: Path) -> None:
    prepare_coco_semantic(root, show_progress=False)
    prepare_coco_stuff(root, show_progress=False)
    prepare_coco_stuff_10k(root / "coco_stuff_10k", show_progress=False)


def test_a_second_run_writes_nothing(raw):
    _prepare_all(raw)
    before = _outputs(raw)
    assert len(before) == 8 + 8 + 16
    _prepare_all(raw)
    assert _outputs(raw) == before


@pytest.mark.parametrize(
    ("module", "function", "calls", "whole"),
    [
        (coco_prepare, "write_label_map", 5, 5),
        (coco_prepare, "write_label_map", 10, 10),
        (stuff_prepare, "prepare_picture", 4, 16 + 8),
    ],
)
def test_a_killed_run_goes_on_where_it_was(raw, module, function, calls, whole):
    run_until_killed(lambda: _prepare_all(raw), module, function, calls)
    before = _outputs(raw)
    assert len(before) == whole
    _prepare_all(raw)
    after = _outputs(raw)
    assert {name: after[name] for name in before} == before
    assert len(after) == 32


def test_files_cut_off_are_made_again(raw):
    _prepare_all(raw)
    before = {name: content for name, (_, content) in _outputs(raw).items()}
    for name in sorted(before)[::5]:
        if name.endswith(".png"):
            (raw / name).write_bytes(before[name][: len(before[name]) // 2])
    missing = next(name for name in before if name.endswith(".jpg"))
    (raw / missing).unlink()
    _prepare_all(raw)
    assert {name: content for name, (_, content) in _outputs(raw).items()} == before


def test_nothing_unpacked(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"panoptic_val2017\.json: no such file; unpack"):
        prepare_coco_semantic(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"test\.txt: no such file; unpack cocostuff-10k"):
        prepare_coco_stuff_10k(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_broken_jsons_are_named(one_picture):
    path = one_picture / "annotations/panoptic_val2017.json"
    for text, words in (
        ('{"annotations": [', "not whole"),
        ("{}", "no annotations in it"),
        ('{"annotations": [{"image_id": 1}]}', "not in .* format .an entry has no 'file_name'"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=rf"panoptic_val2017\.json: {words}.*unpack"):
            prepare_coco_semantic(one_picture, show_progress=False)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_broken_pngs_are_named(raw, num_workers):
    broken = raw / "panoptic_val2017/000000000021.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"000000000021\.png: not a whole picture.*unpack"):
        prepare_coco_semantic(raw, num_workers, show_progress=False)
    broken.unlink()
    with pytest.raises(FileNotFoundError, match=r"000000000021\.png: no such file; unpack"):
        prepare_coco_semantic(raw, num_workers, show_progress=False)
    broken.write_bytes(whole)
    prepare_coco_semantic(raw, num_workers, show_progress=False)
    assert len(_outputs(raw)) == 8


def test_grey_pngs_have_no_ids(one_picture):
    Image.new("L", (4, 3)).save(one_picture / "panoptic_val2017/000000000139.png")
    with pytest.raises(ValueError, match=r"000000000139\.png: a picture of mode L"):
        prepare_coco_semantic(one_picture, show_progress=False)


def test_categories_of_another_dataset_are_refused(one_picture):
    entry = {
        "image_id": 139,
        "file_name": "000000000139.png",
        "segments_info": [*SEGMENTS, {"id": 3, "category_id": 91}],
    }
    _write_json(one_picture, {"annotations": [entry]})
    with pytest.raises(ValueError, match=r"000000000139\.png: a segment of category 91"):
        prepare_coco_stuff(one_picture, show_progress=False)


def _write_v1_0(path: Path, labels: np.ndarray) -> None:
    """As MATLAB 7.3 does: HDF5 after a header of 512 bytes, columns first."""
    with h5py.File(path, "w", userblock_size=512) as file:
        file.create_dataset("S", data=labels.T, compression="gzip")
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")


# unlabelled, the first and last things, the first and last stuff
LABELS_V1_0 = np.array([[1, 2, 81], [82, 172, 13]])
LABELS_V1_1 = np.array([[0, 1, 90], [92, 182, 13]])  # COCO's ids; 12 does not exist
CLASSES = [[IGNORE, 0, 79], [80, 170, 11]]


def test_both_versions_of_stuff_10k(tmp_path):
    for dtype in (np.uint8, np.float64):
        _write_v1_0(tmp_path / "v1.0.mat", LABELS_V1_0.astype(dtype))
        scipy.io.savemat(tmp_path / "v1.1.mat", {"S": LABELS_V1_1.astype(dtype), "names": ["a"]})
        first = read_label_map(tmp_path / "v1.0.mat")
        assert first.dtype == np.uint8 and first.tolist()[0] == CLASSES[0]
        assert first.tolist()[1] == [80, 170, 11]
        assert read_label_map(tmp_path / "v1.1.mat").tolist() == CLASSES


def test_stuff_10k_of_version_1_0(raw, mini_coco_root):
    """The same label maps as from 1.1, written once more as 1.0 has them."""
    root = raw / "coco_stuff_10k"
    expected = mini_coco_root / "coco/coco_stuff_10k/annotations_detectron2"
    for path in expected.glob("*/*.png"):
        labels = _pixels(path).astype(int) + 2
        labels[labels == IGNORE + 2] = 1
        _write_v1_0(root / "annotations" / f"{path.stem}.mat", labels)
    prepare_coco_stuff_10k(root, 2, show_progress=False)
    for path in expected.glob("*/*.png"):
        made = root / "annotations_detectron2" / path.parent.name / path.name
        assert (_pixels(made) == _pixels(path)).all()


def test_without_h5py(tmp_path, monkeypatch):
    _write_v1_0(tmp_path / "a.mat", LABELS_V1_0)
    real = stuff_prepare.importlib.util.find_spec
    monkeypatch.setattr(
        stuff_prepare.importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "h5py" else real(name, *rest),
    )
    with pytest.raises(ValueError, match=r"a\.mat: .*h5py is needed; pip install h5py"):
        read_label_map(tmp_path / "a.mat")


@pytest.mark.parametrize(
    "label, version, complaint",
    [(173, 0, "label 173"), (0, 0, "label 0"), (12, 1, "label 12"), (183, 1, "label 183")],
)
def test_unknown_labels_are_refused(tmp_path, label, version, complaint):
    path = tmp_path / "a.mat"
    labels = np.full((2, 3), label)
    if version == 0:
        _write_v1_0(path, labels)
    else:
        scipy.io.savemat(path, {"S": labels})
    with pytest.raises(ValueError, match=rf"a\.mat: {complaint}, which COCO-Stuff does not have"):
        read_label_map(path)


@pytest.mark.parametrize("length", [0, 100, 300, 600])
@pytest.mark.parametrize("write", [_write_v1_0, lambda p, x: scipy.io.savemat(p, {"S": x})])
def test_matlab_files_cut_off_are_named(tmp_path, write, length):
    path = tmp_path / "a.mat"
    write(path, np.tile(LABELS_V1_0, (50, 50)))
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"a\.mat: not a whole MATLAB file .*unpack"):
        read_label_map(path)


def test_broken_stuff_10k_is_named(raw):
    root = raw / "coco_stuff_10k"
    name = (root / "imageLists/test.txt").read_text().split()[1]
    annotation, image = root / f"annotations/{name}.mat", root / f"images/{name}.jpg"
    whole = annotation.read_bytes()
    scipy.io.savemat(annotation, {"T": LABELS_V1_1})
    with pytest.raises(ValueError, match=rf"{name}\.mat: not a whole MATLAB file"):
        prepare_coco_stuff_10k(root, show_progress=False)
    scipy.io.savemat(annotation, {"S": LABELS_V1_1})
    with pytest.raises(ValueError, match=rf"{name}\.mat: labels of 2x3 for a picture of 96x144"):
        prepare_coco_stuff_10k(root, show_progress=False)
    annotation.unlink()
    with pytest.raises(FileNotFoundError, match=rf"{name}\.mat: no such file; unpack"):
        prepare_coco_stuff_10k(root, show_progress=False)
    annotation.write_bytes(whole)
    image.unlink()
    with pytest.raises(FileNotFoundError, match=rf"{name}\.jpg: no such file; unpack"):
        prepare_coco_stuff_10k(root, show_progress=False)
    (root / "imageLists/test.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"test\.txt: no names in it"):
        prepare_coco_stuff_10k(root, show_progress=False)
