"""predictions.png of each task: what is drawn, and where."""

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode, Instances
from PIL import Image
from torch import nn

from mask2former.config import add_maskformer2_config
from mask2former.engine.pictures import Classes, _instances, _panoptic, draw_predictions
from mask2former.layers.packed_masks import PackedMasks

NAME = "pictures_of_tasks"
HEIGHT, WIDTH = 60, 80
NAMES = ["sky", "car", "tree"]
COLOURS = [[0, 0, 255], [255, 0, 0], [0, 255, 0]]
CAR = (slice(30, 50), slice(10, 40))
TREE = (slice(10, 50), slice(50, 70))
TASKS = ("SEMANTIC_ON", "PANOPTIC_ON", "INSTANCE_ON")


class Answer(nn.Module):
    """A model that has learned one image by heart."""

    def __init__(self, result):
        super().__init__()
        self.result = result

    def forward(self, batched_inputs):
        assert len(batched_inputs) == 1 and not self.training
        return [self.result]


def masks():
    car, tree = np.zeros((2, HEIGHT, WIDTH), bool)
    car[CAR], tree[TREE] = True, True
    return car, tree


def make_result():
    car, tree = map(torch.from_numpy, masks())
    sem_seg = torch.zeros(3, HEIGHT, WIDTH)
    sem_seg[0], sem_seg[1, car], sem_seg[2, tree] = 0.5, 0.9, 0.9
    instances = Instances((HEIGHT, WIDTH))
    instances.pred_masks = torch.stack((car, tree))
    instances.pred_classes = torch.tensor([1, 2])
    instances.scores = torch.tensor([0.9, 0.3])
    segments = [
        {"id": 1, "category_id": 1, "isthing": True},
        {"id": 2, "category_id": 2, "isthing": False},
    ]
    panoptic = (car.int() + 2 * tree.int(), segments)
    return {"sem_seg": sem_seg, "panoptic_seg": panoptic, "instances": instances}


@pytest.fixture
def sample(tmp_path):
    car, tree = masks()
    Image.fromarray(np.full((HEIGHT, WIDTH, 3), 128, np.uint8)).save(tmp_path / "image.png")
    Image.fromarray((car + 2 * tree).astype(np.uint8)).save(tmp_path / "labels.png")
    ids = (300 * car + 70000 * tree).astype(np.int64)
    png = np.stack((ids % 256, ids // 256 % 256, ids // 256**2), 2).astype(np.uint8)
    Image.fromarray(png).save(tmp_path / "panoptic.png")
    return {
        "file_name": str(tmp_path / "image.png"),
        "sem_seg_file_name": str(tmp_path / "labels.png"),
        "pan_seg_file_name": str(tmp_path / "panoptic.png"),
        "segments_info": [
            {"id": 300, "category_id": 1, "iscrowd": 0},
            {"id": 70000, "category_id": 2, "iscrowd": 0},
        ],
        "annotations": [
            {
                "category_id": 1,
                "bbox": [10, 30, 40, 50],
                "bbox_mode": BoxMode.XYXY_ABS,
                "segmentation": [[10, 30, 40, 30, 40, 50, 10, 50]],
            }
        ],
    }


@pytest.fixture
def register(sample):
    """Registers the dataset with these keys of its only image."""

    def add(*keys):
        kept = {k: v for k, v in sample.items() if k in ("file_name", "segments_info", *keys)}
        DatasetCatalog.register(NAME, lambda: [kept])
        MetadataCatalog.get(NAME).set(
            stuff_classes=NAMES,
            stuff_colors=COLOURS,
            thing_dataset_id_to_contiguous_id={26: 1},
            evaluator_type="cityscapes_panoptic_seg",
        )

    yield add
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


def config(*tasks):
    cfg = get_cfg()
    add_maskformer2_config(cfg)
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 3
    for task in TASKS:
        cfg.MODEL.MASK_FORMER.TEST[task] = task in tasks
    return cfg


def draw(tmp_path, *tasks):
    """The picture, cut into what the three columns hold, or None."""
    path = tmp_path / "predictions.png"
    if not draw_predictions(config(*tasks), Answer(make_result()), NAME, str(path)):
        assert not path.exists()
        return None
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    return np.array_split(pixels[: pixels.shape[0] * 4 // 5], 3, axis=1)


def share(pixels, colour, tolerance=2):
    """Of how many pixels have nearly this colour."""
    return (np.abs(pixels - np.array(colour)).max(2) <= tolerance).mean()


def test_classes_of_pixels(register, tmp_path):
    register("sem_seg_file_name")
    image, truth, prediction = draw(tmp_path, "SEMANTIC_ON")
    for colour in COLOURS:
        assert share(image, colour) == 0
        assert share(truth, colour) > 0.04 and share(prediction, colour) > 0.04


BLENDS = [[128, 128, 128], [191, 64, 64], [64, 191, 64]]  # half of the image, half of the class


def test_panoptic_segments(register, tmp_path):
    register("pan_seg_file_name", "sem_seg_file_name", "annotations")
    image, truth, prediction = draw(tmp_path, *TASKS)
    assert share(image, BLENDS[0]) > 0.5
    for pixels in (truth, prediction):
        assert share(pixels, BLENDS[0]) > 0.2
        assert share(pixels, BLENDS[1]) > 0.03 and share(pixels, BLENDS[2]) > 0.04
    assert share(image, BLENDS[1]) == share(image, BLENDS[2]) == 0


def test_instances(register, tmp_path):
    register("annotations", "sem_seg_file_name")
    image, truth, prediction = draw(tmp_path, "INSTANCE_ON", "SEMANTIC_ON")
    for pixels in (truth, prediction):
        assert share(pixels, BLENDS[1]) > 0.03
        assert share(pixels, BLENDS[2]) == 0  # its score is low
    assert share(image, BLENDS[1]) == 0


@pytest.mark.parametrize(
    ("tasks", "keys"),
    [
        (("SEMANTIC_ON",), ("annotations",)),
        (("PANOPTIC_ON",), ("annotations", "sem_seg_file_name")),
        (("INSTANCE_ON",), ()),
    ],
)
def test_nothing_is_drawn_of_what_the_dataset_does_not_know(register, tmp_path, tasks, keys):
    register(*keys)
    assert draw(tmp_path, *tasks) is None


@pytest.mark.parametrize("painter", [_panoptic, _instances])
def test_nothing_found_leaves_the_image(sample, register, painter):
    register()
    result = make_result()
    result["instances"] = result["instances"][:0]
    result["panoptic_seg"] = torch.zeros(HEIGHT, WIDTH, dtype=torch.int32), []
    image = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    classes = Classes.of(MetadataCatalog.get(NAME), 3)
    truth, prediction, shown = painter(image, sample, result, classes)
    assert (prediction == 128).all() and not (truth == 128).all()
    assert truth.shape == prediction.shape and 1 in shown


def test_packed_masks_are_drawn_alike(sample, register):
    register()
    image = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    classes = Classes.of(MetadataCatalog.get(NAME), 3)
    result, packed = make_result(), make_result()
    packed["instances"].pred_masks = PackedMasks.pack(packed["instances"].pred_masks)
    _, expected, _ = _instances(image, sample, result, classes)
    _, prediction, _ = _instances(image, sample, packed, classes)
    assert (prediction != 128).any() and (prediction == expected).all()


def test_crowds_and_rle_are_drawn(sample, register):
    from pycocotools import mask as coco_mask

    register()
    rle = coco_mask.encode(np.asfortranarray(masks()[1].astype(np.uint8)))
    sample["annotations"].append({"category_id": 2, "segmentation": rle, "iscrowd": 1})
    image = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    classes = Classes.of(MetadataCatalog.get(NAME), 3)
    truth, _, shown = _instances(image, sample, make_result(), classes)
    assert shown == {1, 2} and share(truth.astype(int), BLENDS[2]) > 0.1
