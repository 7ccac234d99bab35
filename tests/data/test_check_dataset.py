"""tools/check_dataset.py finds each fault that is planted, and nothing in what is whole."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from drawn_shapes import write_coco, write_panoptic, write_semantic
from PIL import Image

TOOL = Path(__file__).parents[2] / "tools" / "check_dataset.py"
FIT, FAULTY, UNREADABLE = 0, 1, 2


@pytest.fixture
def check(tmp_path, monkeypatch, capsys):
    """The tool as a function of its arguments: exit code, what it said, what it complained of."""
    spec = importlib.util.spec_from_file_location("check_dataset_tool", TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    def run(*words):
        argv = ["check_dataset.py", "--quiet", "--output", str(tmp_path / "sheets"), *words]
        monkeypatch.setattr(sys, "argv", argv)
        with pytest.raises(SystemExit) as end:
            tool.main()
        said = capsys.readouterr()
        return end.value.code, said.out, said.err

    return run


def change(path, edit):
    content = json.loads(Path(path).read_text())
    edit(content)
    Path(path).write_text(json.dumps(content))


def paint(path, value, box=np.s_[:4, :4]):
    pixels = np.array(Image.open(path))
    pixels[box] = value
    Image.fromarray(pixels).save(path)


def cut(path):
    path.write_bytes(path.read_bytes()[:-60])


def of_annotation(number, **values):
    return lambda f: change(f / "shapes.json", lambda c: c["annotations"][number].update(values))


def of_segment(**values):
    return lambda f: change(
        f / "shapes.json", lambda c: c["annotations"][1]["segments_info"][1].update(values)
    )


def shrink(path):
    Image.open(path).resize((32, 24)).save(path)


def turn(path):
    Image.open(path).transpose(Image.Transpose.ROTATE_90).save(path)


FAULTS = [
    # semantic
    (write_semantic, lambda f: (f / "images" / "1.png").unlink(), "label without picture (1)"),
    (write_semantic, lambda f: (f / "labels" / "1.png").unlink(), "picture without label (1)"),
    (write_semantic, lambda f: cut(f / "images" / "1.png"), "unreadable picture (1)"),
    (write_semantic, lambda f: cut(f / "labels" / "1.png"), "unreadable label (1)"),
    (write_semantic, lambda f: shrink(f / "labels" / "1.png"), "size mismatch (1)"),
    (write_semantic, lambda f: paint(f / "labels" / "1.png", 7), "label out of range (1)"),
    (
        write_semantic,
        lambda f: Image.new("RGB", (64, 48)).save(f / "labels" / "1.png"),
        "label that is no label map (1)",
    ),
    # coco
    (write_coco, lambda f: (f / "images" / "1.png").unlink(), "missing picture (1)"),
    (write_coco, lambda f: cut(f / "images" / "1.png"), "unreadable picture (1)"),
    (write_coco, lambda f: turn(f / "images" / "1.png"), "size mismatch (1)"),
    (
        write_coco,
        lambda f: change(f / "shapes.json", lambda c: c["images"][1].update(id=0)),
        "duplicate image id (1)",
    ),
    (
        write_coco,
        lambda f: change(f / "shapes.json", lambda c: c["images"][1].update(file_name="0.png")),
        "duplicate file name (1)",
    ),
    (write_coco, of_annotation(1, id=1), "duplicate annotation id (1)"),
    (write_coco, of_annotation(1, image_id=99), "annotation of an unknown image (1)"),
    (write_coco, of_annotation(1, category_id=99), "annotation of an unknown category (1)"),
    (write_coco, of_annotation(1, segmentation=[[3, 3, 9, 9]]), "degenerate polygon (1)"),
    (write_coco, of_annotation(1, segmentation=[[3, 3, 9, 9, 3, 3]]), "degenerate polygon (1)"),
    (write_coco, of_annotation(1, segmentation=[]), "empty mask (1)"),
    (write_coco, of_annotation(1, segmentation=[[1, 1, 1, 5, 1, 9]]), "empty mask (1)"),
    (write_coco, of_annotation(1, segmentation=[[1, 2, 3]]), "unusable segmentation (1)"),
    (
        write_coco,
        of_annotation(1, segmentation=[[90, 5, 99, 5, 99, 9]]),
        "polygon outside the picture (1)",
    ),
    (
        write_coco,
        of_annotation(1, segmentation={"size": [48, 64], "counts": [48 * 64]}),
        "empty mask (1)",
    ),
    (
        write_coco,
        of_annotation(1, segmentation={"size": [24, 64], "counts": [24 * 64]}),
        "unusable segmentation (1)",
    ),
    # panoptic
    (write_panoptic, lambda f: (f / "images" / "1.png").unlink(), "missing picture (1)"),
    (write_panoptic, lambda f: (f / "pngs" / "1.png").unlink(), "missing PNG (1)"),
    (write_panoptic, lambda f: cut(f / "pngs" / "1.png"), "unreadable PNG (1)"),
    (write_panoptic, lambda f: shrink(f / "pngs" / "1.png"), "size mismatch (1)"),
    (write_panoptic, lambda f: paint(f / "pngs" / "1.png", 7), "pixels without segment (1)"),
    (write_panoptic, of_segment(id=77), "segment without pixels (1)"),
    (write_panoptic, of_segment(id=300), "duplicate segment id (1)"),
    (write_panoptic, of_segment(category_id=77), "segment of an unknown category (1)"),
    (
        write_panoptic,
        lambda f: change(f / "shapes.json", lambda c: c["annotations"].pop()),
        "image without annotation (1)",
    ),
]


@pytest.mark.parametrize("write", [write_semantic, write_coco, write_panoptic])
def test_what_is_whole_is_fit(check, tmp_path, write):
    code, said, _ = check(write(tmp_path))
    assert code == FIT
    assert "fault" not in said and "warning" not in said and "fit for training" in said
    (sheet,) = (tmp_path / "sheets").iterdir()
    pixels = np.array(Image.open(sheet).convert("RGB"))
    # masks are drawn: their white outlines stand on colours, not on the white of the paper
    colourful = (pixels.max(-1).astype(int) - pixels.min(-1)) > 60
    assert colourful.mean() > 0.01


@pytest.mark.parametrize(
    "write, spoil, expected", FAULTS, ids=[f"{w.__name__[6:]} {e}" for w, _, e in FAULTS]
)
def test_each_planted_fault_is_found(check, tmp_path, write, spoil, expected):
    name = write(tmp_path)
    spoil(tmp_path)
    code, said, _ = check("--workers", "1", "--pictures", "0", name)
    assert code == FAULTY
    assert f"fault: {expected}" in said.splitlines()
    assert "not fit for training" in said


def test_the_sheet_passes_over_what_is_broken(check, tmp_path):
    name = write_semantic(tmp_path)
    cut(tmp_path / "images" / "0.png")
    cut(tmp_path / "labels" / "1.png")
    assert check("--workers", "1", name)[0] == FAULTY
    assert len(list((tmp_path / "sheets").iterdir())) == 1


def test_all_faults_are_found_at_once_and_long_lists_are_cut(check, tmp_path):
    name = write_coco(tmp_path, count=8)
    for number in range(6):
        (tmp_path / "images" / f"{number}.png").unlink()
    of_annotation(14, segmentation=[])(tmp_path)
    code, said, _ = check("--workers", "2", "--max-listed", "2", "--pictures", "0", name)
    lines = said.splitlines()
    assert code == FAULTY
    start = lines.index("fault: missing picture (6)")
    assert lines[start + 1].strip().startswith(str(tmp_path / "images" / "0.png"))
    assert lines[start + 3] == "  ... and 4 more"
    assert "fault: empty mask (1)" in lines
    assert not (tmp_path / "sheets").exists()


def test_warnings_do_not_fail(check, tmp_path):
    name = write_coco(tmp_path)

    def edit(content):
        content["categories"].append({"id": 30, "name": "ring"})
        content["annotations"] = [a for a in content["annotations"] if a["image_id"] != 2]
        content["annotations"][0]["segmentation"] = [[-5, 3, 20, 3, 20, 20, -5, 20]]

    change(tmp_path / "shapes.json", edit)
    code, said, _ = check("--pictures", "0", name)
    assert code == FIT
    assert "warning: class without instances (1)" in said and "ring: no picture shows it" in said
    assert "warning: picture without objects (1)" in said
    assert "warning: polygon outside the picture (1)" in said


def test_frequencies(check, tmp_path):
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
        for number in range(4):
            Image.fromarray(np.zeros((10, 10), np.uint8)).save(tmp_path / part / f"{number}.png")
    (tmp_path / "classes.txt").write_text("floor\nhole\n")
    paint(tmp_path / "labels" / "0.png", 1)
    paint(tmp_path / "labels" / "1.png", 255)
    _, said, _ = check("--pictures", "0", f"semantic:{tmp_path}/images:{tmp_path}/labels")
    rows = [line.split() for line in said.splitlines()]
    assert ["0", "floor", "4", "100.0%", "4", "368", "95.83%"] in rows
    assert ["1", "hole", "1", "25.0%", "1", "16", "4.17%"] in rows


def test_what_cannot_be_read_at_all(check, tmp_path):
    good = write_semantic(tmp_path)
    code, said, complaint = check("nowhere_val", good, "coco:x.json:y", "--pictures", "0")
    assert code == UNREADABLE
    assert "nowhere_val: cannot be read: unknown dataset" in complaint
    assert "coco:x.json:y: cannot be read: x.json: no such file" in complaint
    assert "fit for training" in said  # the others are looked at all the same


def test_registered_datasets(check, tmp_path):
    write_coco(tmp_path)
    paths = {"json_file": str(tmp_path / "shapes.json"), "image_root": str(tmp_path / "images")}
    classes = {"thing_classes": ["disk", "box"], "evaluator_type": "coco"}
    DatasetCatalog.register("shapes_val", list)
    MetadataCatalog.get("shapes_val").set(**paths, **classes)
    of_annotation(1, id=1)(tmp_path)
    code, said, _ = check("shapes_val", "--pictures", "0")
    assert code == FAULTY and "fault: duplicate annotation id (1)" in said

    sample = {"file_name": str(tmp_path / "images" / "0.png"), "image_id": 4}
    DatasetCatalog.register("twice_val", lambda: [sample, sample])
    code, said, _ = check("twice_val", "--pictures", "0")
    assert code == FAULTY
    assert "fault: duplicate image id (1)" in said and "fault: duplicate file name (1)" in said
    assert "fault: sample without ground truth (2)" in said
