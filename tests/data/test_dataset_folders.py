"""The loaders of common layouts: pairs of directories, and a panoptic JSON with its PNGs."""

import json
from pathlib import Path

import pytest

from mask2former.data.datasets.panoptic_json import load_panoptic_json
from mask2former.data.datasets.semantic_folders import load_semantic_folders
from mask2former.files import read_json

ADVICE = "download mine.zip"


def _touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_semantic_pairs_are_sorted_and_named_whole(tmp_path):
    _touch(*(tmp_path / "images" / name for name in ("b.jpg", "a.x.jpg", ".c.jpg", "notes.txt")))
    _touch(*(tmp_path / "labels" / name for name in ("b.tif", "a.x.tif")))
    dicts = load_semantic_folders(
        str(tmp_path / "images"), str(tmp_path / "labels"), ".jpg", ".tif"
    )
    assert dicts == [
        {
            "file_name": f"{tmp_path}/images/{stem}.jpg",
            "sem_seg_file_name": f"{tmp_path}/labels/{stem}.tif",
        }
        for stem in ("a.x", "b")
    ]


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        ([], ["a.png"], r"/images: no such directory; download mine.zip$"),
        (["a.jpg"], [], r"/labels: no such directory; download mine.zip$"),
        (["a.png"], ["a.png"], r"/images: no \*\.jpg in it; download"),
        (["a.jpg", "b.jpg", "c.jpg"], ["b.png"], r"2 of 3 pictures in .*first: .*images/a.jpg\)"),
        (["b.jpg"], ["a.png", "b.png"], r"1 of 2 label maps in .*first: .*labels/a.png\); downl"),
    ],
)
def test_semantic_folders_that_do_not_belong_together(tmp_path, images, labels, message):
    _touch(*(tmp_path / "images" / name for name in images))
    _touch(*(tmp_path / "labels" / name for name in labels))
    with pytest.raises(FileNotFoundError, match=message):
        load_semantic_folders(str(tmp_path / "images"), str(tmp_path / "labels"), advice=ADVICE)


@pytest.fixture
def panoptic(tmp_path):
    """Two pictures, of which the JSON names one and gives the size of it."""
    segments = [
        {"id": 300, "category_id": 5, "iscrowd": 0, "area": 4, "bbox": [0, 0, 2, 2]},
        {"id": 7, "category_id": 9, "iscrowd": 1, "area": 1, "bbox": [3, 0, 1, 1]},
    ]
    content = {
        "images": [{"id": 1, "file_name": "one.jpeg", "height": 4, "width": 6}],
        "annotations": [
            {"image_id": 1, "file_name": "one.png", "segments_info": segments},
            {"image_id": 2, "file_name": "two.png", "segments_info": []},
        ],
    }
    (tmp_path / "all.json").write_text(json.dumps(content))
    _touch(*(tmp_path / "images" / name for name in ("one.jpeg", "two.jpg")))
    _touch(*(tmp_path / side / name for side in ("png", "sem") for name in ("one.png", "two.png")))
    return tmp_path


def _load(root: Path, **options: str) -> list[dict]:
    paths = [str(root / name) for name in ("all.json", "images", "png")]
    return load_panoptic_json(*paths, {5: 0}, {5: 3, 9: 4}, advice=ADVICE, **options)


def test_panoptic_dicts(panoptic):
    first, second = _load(panoptic, semantic_dir=str(panoptic / "sem"))
    assert first == {
        "file_name": f"{panoptic}/images/one.jpeg",
        "image_id": 1,
        "height": 4,
        "width": 6,
        "pan_seg_file_name": f"{panoptic}/png/one.png",
        "sem_seg_file_name": f"{panoptic}/sem/one.png",
        "segments_info": [
            {
                "id": 300,
                "category_id": 0,
                "isthing": True,
                "iscrowd": 0,
                "area": 4,
                "bbox": [0, 0, 2, 2],
            },
            {
                "id": 7,
                "category_id": 4,
                "isthing": False,
                "iscrowd": 1,
                "area": 1,
                "bbox": [3, 0, 1, 1],
            },
        ],
    }
    assert second["file_name"] == f"{panoptic}/images/two.jpg"
    assert "height" not in second and "sem_seg_file_name" not in _load(panoptic)[0]


@pytest.mark.parametrize("name", ["images/two.jpg", "png/one.png", "sem/two.png"])
def test_panoptic_files_that_are_missing_are_counted(panoptic, name):
    (panoptic / name).unlink()
    message = rf"^1 of 2 files that .*all.json lists .*\(the first: .*{name}\); download mine.zip$"
    with pytest.raises(FileNotFoundError, match=message):
        _load(panoptic, semantic_dir=str(panoptic / "sem"))


def test_panoptic_json_of_other_categories_or_of_nothing(panoptic):
    path = panoptic / "all.json"
    path.write_text(path.read_text().replace('"category_id": 9', '"category_id": 10'))
    with pytest.raises(ValueError, match=r"all.json: a segment of one.png has category_id=10, wh"):
        _load(panoptic)
    for text, words in (
        ('{"annotations": []}', "no annotations in it"),
        ("[1, 2]", "no annotations in it"),
        ('{"annotations": [{"image_id": 1, "file_name": "one.png"}]}', "no 'segments_info'"),
        ('{"annotations": [5]}', "not in COCO's panoptic format"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=rf"all.json: .*{words}.*; delete it and download mi"):
            _load(panoptic)


def test_advice_is_about_what_is_missing(panoptic):
    options = {"json_advice": "get the JSON", "semantic_advice": "make the label maps"}
    for name, advice in (
        ("sem", options["semantic_advice"]),
        ("png", options["json_advice"]),
        ("all.json", options["json_advice"]),
        ("images", ADVICE),
    ):
        (panoptic / name).rename(panoptic / f"no_{name}")
        with pytest.raises(FileNotFoundError, match=rf"{name}: no such \w+; {advice}$"):
            _load(panoptic, semantic_dir=str(panoptic / "sem"), **options)


def test_json_is_whole_or_named(tmp_path):
    path = tmp_path / "a.json"
    with pytest.raises(FileNotFoundError, match=r"a.json: no such file; download mine.zip$"):
        read_json(path, ADVICE)
    path.write_text('{"a": [1, 2')
    with pytest.raises(ValueError, match=r"a.json: not whole \(.*\); delete it and download mine"):
        read_json(path, ADVICE)
    path.write_text('{"a": [1, 2]}')
    assert read_json(path, ADVICE) == {"a": [1, 2]}
