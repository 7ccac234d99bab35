"""Datasets that are named by where their files lie."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from drawn_shapes import CLASSES, SIZE, write_coco, write_panoptic, write_semantic
from PIL import Image

from mask2former.config import load_config
from mask2former.data.own import derive_from_data, register_from_config, register_own_datasets
from mask2former.data.own.register import load_own_dataset
from mask2former.data.own.spelling import is_own, parse

CONFIGS = {
    "semantic": "quick_start.yaml",
    "coco": "quick_start_instance.yaml",
    "panoptic": "quick_start_panoptic.yaml",
}


def config(train, test=None, *opts):
    cfg = load_config(CONFIGS[train.partition(":")[0]], ["DATASETS.TRAIN", train, *opts])
    cfg.DATASETS.TEST = (test or train,)
    return cfg


def sentence_of(function, *args):
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        function(*args)
    sentence = str(error.value)
    assert "\n" not in sentence
    return sentence


def change(path, key, edit):
    content = json.loads(Path(path).read_text())
    edit(content[key])
    Path(path).write_text(json.dumps(content))


@pytest.mark.parametrize(
    "name, paths",
    [
        ("semantic:a/images:b", ("a/images", "b")),
        ("semantic:a:/b", ("a", "/b")),
        ("semantic:C:\\a:D:\\b", ("C:\\a", "D:\\b")),
        ("semantic:C:/a:b", ("C:/a", "b")),
        ("coco:C:\\x.json:images", ("C:\\x.json", "images")),
        ("panoptic:x.json:a:b", ("x.json", "a", "b")),
    ],
)
def test_spellings(name, paths):
    assert is_own(name) and parse(name).paths == paths


def test_home_is_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "here")
    assert parse("semantic:~/a:~/b").paths == ("here/a", "here/b")


@pytest.mark.parametrize(
    "name, expected",
    [
        ("semantic:a", "has 1 paths after 'semantic'; write semantic:IMAGES:LABELS"),
        ("semantic:a::b", "write semantic:IMAGES:LABELS"),
        ("coco:a.json:b:c", "has 3 paths after 'coco'; write coco:ANNOTATIONS.json:IMAGES"),
        ("instances:a:b", "'instances' is no kind of dataset; write coco:ANN"),
    ],
)
def test_spellings_that_are_none(name, expected):
    assert expected in sentence_of(parse, name)
    assert not is_own("ade20k_sem_seg_val")


def test_semantic_folders(tmp_path):
    name = write_semantic(tmp_path)
    for part in ("images", "labels"):  # in folders of their own, and of another kind of picture
        (tmp_path / part / "day").mkdir()
        shutil.move(tmp_path / part / "0.png", tmp_path / part / "day" / "0.png")
    Image.open(tmp_path / "images" / "1.png").save(tmp_path / "images" / "1.JPG")
    (tmp_path / "images" / "1.png").unlink()
    (tmp_path / "images" / "notes.txt").touch()
    (tmp_path / "images" / ".1.png").touch()
    register_own_datasets([name])
    samples = DatasetCatalog.get(name)
    pairs = [
        [Path(sample[key]).relative_to(tmp_path).as_posix() for key in sample] for sample in samples
    ]
    assert ["images/day/0.png", "labels/day/0.png"] in pairs
    assert ["images/1.JPG", "labels/1.png"] in pairs and len(pairs) == 6
    metadata = MetadataCatalog.get(name)
    assert metadata.evaluator_type == "sem_seg" and metadata.ignore_label == 255
    assert metadata.stuff_classes == CLASSES


def test_labels_may_lie_below_the_pictures(tmp_path):
    write_semantic(tmp_path)
    shutil.move(tmp_path / "labels", tmp_path / "images" / "labels")
    name = f"semantic:{tmp_path}/images:{tmp_path}/images/labels"
    register_own_datasets([name])
    assert len(DatasetCatalog.get(name)) == 6


def test_coco_objects(tmp_path):
    name = write_coco(tmp_path)

    def omit(annotations):
        del annotations[0]["bbox"], annotations[0]["iscrowd"], annotations[0]["area"]

    register_own_datasets([name])
    metadata = MetadataCatalog.get(name)
    assert metadata.evaluator_type == "coco"
    assert metadata.json_file == str(tmp_path / "shapes.json")
    assert metadata.thing_classes == ["disk", "box"]
    assert metadata.thing_dataset_id_to_contiguous_id == {10: 0, 20: 1}
    whole = DatasetCatalog.get(name)
    assert [a["category_id"] for a in whole[0]["annotations"]] == [0, 1]
    assert (whole[0]["height"], whole[0]["width"]) == SIZE
    change(tmp_path / "shapes.json", "annotations", omit)
    assert DatasetCatalog.get(name) == whole  # the box is that of the polygon
    register_own_datasets([name])
    assert MetadataCatalog.get(name).get("json_file") is None  # it cannot be evaluated with


def test_panoptic_segments(tmp_path):
    name = write_panoptic(tmp_path)
    register_own_datasets([name])
    metadata = MetadataCatalog.get(name)
    assert metadata.evaluator_type == "coco_panoptic_seg"
    assert metadata.thing_classes == metadata.stuff_classes == CLASSES
    assert metadata.thing_dataset_id_to_contiguous_id == {2: 1, 3: 2}
    assert metadata.stuff_dataset_id_to_contiguous_id == {1: 0}
    sample = DatasetCatalog.get(name)[3]
    assert sample["file_name"] == str(tmp_path / "images" / "3.png")
    assert sample["pan_seg_file_name"] == str(tmp_path / "pngs" / "3.png")
    found = [(s["id"], s["category_id"], s["isthing"]) for s in sample["segments_info"]]
    assert found == [(300, 0, False), (301, 1, True), (302, 2, True)]


@pytest.mark.parametrize("write, num_classes", [(write_semantic, 3), (write_coco, 2)])
def test_the_config_follows_from_the_data(tmp_path, caplog, write, num_classes):
    name = write(tmp_path)
    cfg = config(name)
    cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE = 65
    with caplog.at_level("INFO", "mask2former"):
        derive_from_data(cfg)
    head, names = cfg.MODEL.SEM_SEG_HEAD, cfg.DATASETS.CLASS_NAMES
    assert (head.NUM_CLASSES, names) == (num_classes, CLASSES[-num_classes:])
    ignored = 255 if write is write_semantic else 65
    assert ignored == head.IGNORE_VALUE
    assert f"NUM_CLASSES {num_classes}, from {tmp_path}" in caplog.text


def test_classes_are_found_above_the_labels_and_in_a_table(tmp_path):
    train = write_semantic(tmp_path / "train", names=None)
    (tmp_path / "classes.txt").write_text("one\n\n two words \nthree\n")
    register_own_datasets([train])
    assert MetadataCatalog.get(train).stuff_classes == ["one", "two words", "three"]
    table = {"classes": ["a", "b", "c", "d"], "ignore_value": 2}
    (tmp_path / "train" / "dataset.json").write_text(json.dumps(table))
    cfg = config(train)
    derive_from_data(cfg)
    head = cfg.MODEL.SEM_SEG_HEAD
    assert (head.NUM_CLASSES, head.IGNORE_VALUE) == (4, 2)


def test_classes_are_counted_over_all_labels_together(tmp_path):
    train, test = (write_semantic(tmp_path / part, names=None) for part in ("train", "test"))
    for label in (tmp_path / "test" / "labels").iterdir():  # no box in any picture for testing
        pixels = np.array(Image.open(label))
        pixels[pixels == 2] = 255
        Image.fromarray(pixels).save(label)
    cfg = config(train, test)
    derive_from_data(cfg)
    assert cfg.DATASETS.CLASS_NAMES == ["class_0", "class_1", "class_2"]
    assert MetadataCatalog.get(test).stuff_classes == cfg.DATASETS.CLASS_NAMES

    evaluated = config(train, test)
    derive_from_data(evaluated, eval_only=True)  # the same command line, the same model
    assert evaluated.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 3
    shutil.rmtree(tmp_path / "train")  # the saved config needs no training set
    saved = config(train, test)
    saved.DATASETS.CLASS_NAMES = cfg.DATASETS.CLASS_NAMES
    derive_from_data(saved, eval_only=True)
    assert saved.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 3 and saved.DATASETS.TRAIN == ()


def test_another_process_registers_from_the_config_alone(tmp_path, monkeypatch):
    name = write_semantic(tmp_path, names=None)
    cfg = config(name)
    derive_from_data(cfg)
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)
    # What takes time, counting, is done once.
    monkeypatch.setattr("mask2former.data.own.register.values_of_labels", None)
    register_from_config(cfg)
    assert MetadataCatalog.get(name).stuff_classes == ["class_0", "class_1", "class_2"]
    assert len(DatasetCatalog.get(name)) == 6


def test_datasets_of_different_classes(tmp_path):
    train, test = write_coco(tmp_path / "a"), write_coco(tmp_path / "b")
    change(tmp_path / "b" / "shapes.json", "categories", lambda c: c.append({"id": 1, "name": "?"}))
    sentence = sentence_of(derive_from_data, config(train, test))
    assert "a/shapes.json names 2 classes (disk, box), but " in sentence
    assert "b/shapes.json 3 (?, disk, box)" in sentence
    cfg = config(train)
    cfg.DATASETS.CLASS_NAMES = ["x"]
    assert "DATASETS.CLASS_NAMES names 1 classes (x), but" in sentence_of(derive_from_data, cfg)


@pytest.mark.parametrize(
    "write, of_config, expected",
    [
        (write_coco, "semantic", "mask_former_semantic is for other data; take a config like conf"),
        (write_semantic, "coco", "mask_former_instance is for other data; take a config like conf"),
        (write_panoptic, "coco", "take a config like configs/coco/panoptic-segmentation/maskf"),
    ],
)
def test_a_config_of_another_task(tmp_path, write, of_config, expected):
    name = write(tmp_path)
    cfg = load_config(CONFIGS[of_config], ["DATASETS.TRAIN", name, "DATASETS.TEST", "()"])
    assert expected in sentence_of(derive_from_data, cfg)
    cfg.DATASETS.TEST = (name,)
    for switch in ("SEMANTIC_ON", "INSTANCE_ON", "PANOPTIC_ON"):
        cfg.MODEL.MASK_FORMER.TEST[switch] = False
    assert "_ON is False" in sentence_of(derive_from_data, cfg, True)


def broken_labels(folder):
    for path in (folder / "labels").iterdir():
        Image.fromarray(np.array(Image.open(path)) // 2 * 255).save(path)
    (folder / "classes.txt").unlink()


MISTAKES = [
    (write_semantic, lambda f: shutil.rmtree(f / "labels"), "labels: no such folder"),
    (
        write_semantic,
        lambda f: [p.unlink() for p in (f / "images").iterdir()],
        "images: no pictures (.jpg",
    ),
    (
        write_semantic,
        lambda f: (f / "images" / "2.png").unlink(),
        "labels/2.png: no picture 2.* in ",
    ),
    (
        write_semantic,
        lambda f: [(f / "labels" / f"{n}.png").unlink() for n in (2, 3)],
        "images/2.png: no label 2.png in ",
    ),
    (
        write_semantic,
        lambda f: shutil.copy(f / "images" / "2.png", f / "images" / "2.jpg"),
        "images: 2.jpg and 2.png differ only in their endings",
    ),
    (write_semantic, lambda f: (f / "classes.txt").write_text("a\nb\na\n"), "the name 'a'"),
    (write_semantic, lambda f: (f / "classes.txt").write_text(" \n"), "names no class"),
    (write_semantic, lambda f: (f / "dataset.json").write_text("[]"), 'no list of names as "cla'),
    (
        write_semantic,
        lambda f: (f / "dataset.json").write_text('{"classes": ["a"], "ignore_value": -1}'),
        '"ignore_value" is -1',
    ),
    (write_semantic, broken_labels, "no values but 0, 255, and 255 means that nobody labelled"),
    (write_coco, lambda f: (f / "shapes.json").unlink(), "shapes.json: no such file"),
    (write_coco, lambda f: (f / "shapes.json").write_text("{"), "shapes.json: not whole"),
    (write_coco, lambda f: (f / "shapes.json").write_text("[]"), 'no list "images" in it'),
    (write_coco, lambda f: shutil.rmtree(f / "images"), "images: no such folder"),
    (write_coco, lambda f: (f / "images" / "1.png").unlink(), "images/1.png: no such file, but "),
    (
        write_coco,
        lambda f: change(f / "shapes.json", "images", lambda i: i[1].update(id=0)),
        "two images have the id 0",
    ),
    (
        write_coco,
        lambda f: change(f / "shapes.json", "images", lambda i: i[1].update(file_name="0.png")),
        "images 0 and 1 have the same file 0.png",
    ),
    (
        write_coco,
        lambda f: change(f / "shapes.json", "images", lambda i: i[1].pop("height")),
        'image 1 of the list has no whole number as "height"',
    ),
    (
        write_coco,
        lambda f: change(f / "shapes.json", "images", lambda i: i[1].update(height="48")),
        'image 1 of the list has no whole number as "height"',
    ),
    (
        write_coco,
        lambda f: change(f / "shapes.json", "annotations", lambda a: a[1].update(bbox=[1, 2])),
        "annotation 2 has the bbox [1, 2]; give [x, y, width, height]",
    ),
    (
        write_coco,
        lambda f: change(f / "shapes.json", "annotations", lambda a: a[1].update(image_id="1")),
        "annotation 2 is of image '1', which",
    ),
    (
        write_coco,
        lambda f: change(f / "shapes.json", "annotations", lambda a: a[1].update(id=1)),
        "two annotations have the id 1",
    ),
    (
        write_coco,
        lambda f: change(f / "shapes.json", "annotations", lambda a: a[1].update(image_id=77)),
        'annotation 2 is of image 77, which "images" does not list',
    ),
    (
        write_coco,
        lambda f: change(f / "shapes.json", "annotations", lambda a: a[1].update(category_id=2)),
        'annotation 2 is of category 2, which "categories" does not list',
    ),
    (
        write_coco,
        lambda f: change(f / "shapes.json", "annotations", lambda a: a[1].pop("segmentation")),
        "annotation 2 has no segmentation",
    ),
    (
        write_coco,
        lambda f: change(f / "shapes.json", "categories", lambda c: c[1].pop("name")),
        'category 1 of the list has no "name"',
    ),
    (
        write_coco,
        lambda f: change(f / "shapes.json", "categories", lambda c: c[1].update(id="b")),
        "a category's id is no whole number",
    ),
    (
        write_panoptic,
        lambda f: change(f / "shapes.json", "categories", lambda c: c[0].pop("isthing")),
        "category 'floor' has no \"isthing\"",
    ),
    (write_panoptic, lambda f: (f / "pngs" / "1.png").unlink(), "pngs/1.png: no such file, but "),
    (
        write_panoptic,
        lambda f: change(f / "shapes.json", "annotations", lambda a: a.pop()),
        "image 5 has no annotation",
    ),
    (
        write_panoptic,
        lambda f: change(f / "shapes.json", "annotations", lambda a: a[1].update(image_id=0)),
        "is the second one of image 0",
    ),
    (
        write_panoptic,
        lambda f: change(
            f / "shapes.json",
            "annotations",
            lambda a: a[1]["segments_info"][0].update(category_id=9),
        ),
        '(1.png) has segments of categories that "categories" does not list',
    ),
]


@pytest.mark.parametrize("write, spoil, expected", MISTAKES, ids=[m[2] for m in MISTAKES])
def test_each_mistake_is_a_sentence(tmp_path, write, spoil, expected):
    name = write(tmp_path)
    spoil(tmp_path)

    def use():
        register_own_datasets([name])
        DatasetCatalog.get(name)

    sentence = sentence_of(use)
    assert expected in sentence
    assert str(tmp_path) in sentence


@pytest.mark.parametrize(
    "segmentation", [None, "abc", [1, 2, 3, 4, 5, 6], [["a"] * 6], {"counts": [1]}, {"size": [1]}]
)
def test_what_no_box_can_be_made_of_is_left_to_where_masks_are_drawn(tmp_path, segmentation):
    name = write_coco(tmp_path)
    change(tmp_path / "shapes.json", "annotations", lambda a: a[1].pop("bbox", None))
    change(
        tmp_path / "shapes.json", "annotations", lambda a: a[1].update(segmentation=segmentation)
    )
    samples, problems = load_own_dataset(name)
    annotation = next(a for s in samples for a in s["annotations"] if a["id"] == 2)
    assert annotation["bbox"] == [0, 0, 0, 0] and annotation["segmentation"] == segmentation
    assert problems == []


def test_a_sentence_says_how_many_more_there_are(tmp_path):
    name = write_coco(tmp_path)
    for number in range(3):
        (tmp_path / "images" / f"{number}.png").unlink()
    register_own_datasets([name])
    sentence = sentence_of(DatasetCatalog.get, name)
    assert sentence.endswith(f"(and 2 more; python tools/check_dataset.py {name} lists them)")
