"""Test-time augmentation: what becomes of several views of one image."""

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.data.transforms import NoOpTransform, TransformList, VFlipTransform
from detectron2.modeling import DatasetMapperTTA, build_model
from PIL import Image
from tiny_model import example, tiny_config
from torch import nn

from mask2former import SemanticSegmentorWithTTA
from mask2former.modeling.maskformer_model import Prediction
from mask2former.modeling.test_time_augmentation import (
    MatchedQueries,
    on_grid_of,
    pairwise_likeness,
)

QUERIES, CLASSES = 8, 4
DATASET = "tiny_tta_train"
TASKS = ("SEMANTIC_ON", "PANOPTIC_ON", "INSTANCE_ON")


def make_prediction(seed=0, grid=(16, 24), image_size=(64, 96)):
    """Smooth masks on a grid of stride 4."""
    torch.manual_seed(seed)
    class_logits = 3 * torch.randn(QUERIES, CLASSES + 1)
    noise = torch.randn(1, QUERIES, 4, 6)
    masks = 5 * nn.functional.interpolate(noise, grid, mode="bilinear")[0]
    return Prediction(class_logits, masks, (4 * grid[0], 4 * grid[1]), image_size)


def permuted(prediction, seed):
    order = torch.randperm(QUERIES, generator=torch.Generator().manual_seed(seed))
    return prediction._replace(
        class_logits=prediction.class_logits[order], mask_logits=prediction.mask_logits[order]
    )


def mirrored(prediction):
    """Of an image without padding."""
    return prediction._replace(mask_logits=prediction.mask_logits.flip(2))


def merge(*views):
    queries = MatchedQueries(views[0][0])
    for prediction, is_mirrored in views:
        queries.add(prediction, is_mirrored)
    return queries.mean()


def close(one, other, atol=1e-4):
    torch.testing.assert_close(one, other, rtol=0, atol=atol)


def same_prediction(one, other):
    close(one.class_logits.softmax(-1), other.class_logits.softmax(-1), atol=1e-6)
    close(one.mask_logits, other.mask_logits)
    assert one[2:] == other[2:]


# ------------------------------------------------------------------------------ matched queries
@pytest.mark.parametrize("seed", range(5))
def test_permuted_queries_are_put_in_order(seed):
    first = make_prediction(seed)
    same_prediction(
        merge(
            (first, False),
            (permuted(first, 1), False),
            (mirrored(permuted(first, 2)), True),
            (mirrored(permuted(first, 3)), True),
        ),
        first,
    )


def test_permuted_queries_of_a_padded_image_are_put_in_order():
    first = make_prediction(image_size=(60, 90))
    first.mask_logits[:, 15:] = 0  # the padding: cells that begin where the image ends
    first.mask_logits[:, :, 23:] = 0
    other = permuted(first, 1)
    other.mask_logits[:, 15:] = 50  # means nothing
    other.mask_logits[:, :, 23:] = -50
    result = merge((first, False), (other, False))
    close(result.mask_logits[:, :15, :23], first.mask_logits[:, :15, :23])
    close(result.class_logits.softmax(-1), first.class_logits.softmax(-1))


def test_an_object_is_found_again_though_its_mask_and_class_have_changed():
    first = make_prediction()
    other = permuted(first, 1)
    other.class_logits.add_(0.3 * torch.randn(other.class_logits.shape))
    other.mask_logits.add_(0.3 * torch.randn(other.mask_logits.shape))
    order = torch.randperm(QUERIES, generator=torch.Generator().manual_seed(1))
    result = merge((first, False), (other, False))
    back = other.class_logits[order.argsort()].softmax(-1)
    close(result.class_logits.softmax(-1), (first.class_logits.softmax(-1) + back) / 2)


def test_probabilities_and_mask_logits_are_averaged():
    first, other = make_prediction(), make_prediction()
    other.mask_logits[2].add_(1.0)
    for prediction, no_object in ((first, 0.2), (other, 0.6)):
        share = torch.full((CLASSES + 1,), (1 - no_object) / CLASSES)
        share[-1] = no_object
        prediction.class_logits[2] = share.log()
    result = merge((first, False), (other, False))
    close(result.mask_logits[2], first.mask_logits[2] + 0.5)
    assert result.class_logits[2].softmax(0)[-1].item() == pytest.approx(0.4)


def test_queries_without_any_object_stay_finite():
    first = make_prediction()
    first.class_logits[:] = torch.tensor([-200.0] * CLASSES + [200.0])
    result = merge((first, False), (permuted(first, 1), False))
    close(result.mask_logits, first.mask_logits)
    assert (result.class_logits.softmax(-1)[:, -1] == 1).all()


def test_half_precision_views_are_averaged_in_single_precision():
    first = make_prediction()
    half = first._replace(
        class_logits=first.class_logits.bfloat16(), mask_logits=first.mask_logits.bfloat16()
    )
    result = merge((half, False), (half, False))
    assert result.mask_logits.dtype == result.class_logits.dtype == torch.float32
    close(result.mask_logits, half.mask_logits.float())


def test_broken_views_are_no_crash():
    first = make_prediction()
    broken = first._replace(mask_logits=torch.full_like(first.mask_logits, float("nan")))
    assert merge((first, False), (broken, False)).mask_logits.isnan().all()


def test_likeness_is_one_for_what_is_equal_alone():
    a = torch.rand(QUERIES, 30, generator=torch.Generator().manual_seed(0))
    likeness = pairwise_likeness(a, a)
    close(likeness.diagonal(), torch.ones(QUERIES))
    assert likeness[~torch.eye(QUERIES, dtype=torch.bool)].max() < 0.99
    assert pairwise_likeness(torch.zeros(2, 3), torch.zeros(2, 3)).tolist() == [[0, 0], [0, 0]]


def ramp(grid, padded, size, is_mirrored):
    """Logits that say where in the image a cell is: its share of the width plus that of height."""
    y, x = (
        (torch.arange(n) + 0.5) * p / n / s for n, p, s in zip(grid, padded, size)
    )  # shares of the image
    x = 1 - x if is_mirrored else x
    return (3 * x[None, :] + y[:, None])[None]


@pytest.mark.parametrize("is_mirrored", [False, True])
def test_masks_of_another_size_and_padding_come_to_the_same_place(is_mirrored):
    frame = (16, 24), (64, 96), (50, 90)
    view = (32, 64), (128, 256), (100, 180)
    first = Prediction(torch.zeros(1, 2), ramp(*frame, False), *frame[1:])
    other = Prediction(torch.zeros(1, 2), ramp(*view, is_mirrored), *view[1:])
    result = on_grid_of(first, other, is_mirrored)
    # Not where a cell of the frame lies beyond the view, which takes the value of its border.
    close(result[:, :12, 1:22], first.mask_logits[:, :12, 1:22], atol=1e-3)


# ------------------------------------------------------------------------------------ the model
def build(*overrides, tasks=TASKS, sizes=(64,), flip=False):
    MetadataCatalog.get(DATASET).set(thing_dataset_id_to_contiguous_id={21: 1, 23: 3})
    switches = {f"MODEL.MASK_FORMER.TEST.{key}": key in tasks for key in TASKS}
    cfg = tiny_config(
        *("DATASETS.TRAIN", (DATASET,)),
        *("TEST.AUG.MIN_SIZES", sizes),
        *("TEST.AUG.FLIP", flip),
        *("TEST.DETECTIONS_PER_IMAGE", 10),
        *(part for switch in switches.items() for part in switch),
        *overrides,
    )
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    return cfg, model, SemanticSegmentorWithTTA(cfg, model)


def plain_result(model, sample):
    with torch.no_grad():
        return model([sample])[0]


def test_one_view_is_the_model_itself():
    _, model, tta = build()
    sample = {"image": example(0)["image"], "height": 50, "width": 71}
    expected, (result,) = plain_result(model, sample), tta([sample])
    assert list(result) == list(expected) == ["sem_seg", "panoptic_seg", "instances"]
    close(result["sem_seg"], expected["sem_seg"])
    assert (result["panoptic_seg"][0] != expected["panoptic_seg"][0]).float().mean() < 1e-3
    assert result["panoptic_seg"][1] == expected["panoptic_seg"][1]
    close(result["instances"].scores, expected["instances"].scores)
    assert torch.equal(result["instances"].pred_classes, expected["instances"].pred_classes)


@pytest.mark.parametrize(
    ("sizes", "flip"), [((64,), True), ((48, 64, 80), False), ((80, 48), True)]
)
def test_views_of_all_tasks(sizes, flip):
    cfg, model, tta = build(sizes=sizes, flip=flip)
    sample = {"image": example(0)["image"], "height": 50, "width": 71}
    (result,) = tta([sample])
    scores = []
    for view in DatasetMapperTTA(cfg)(sample):
        transforms = view.pop("transforms").transforms
        score = plain_result(model, view)["sem_seg"]
        is_flipped = type(transforms[-1]).__name__ == "HFlipTransform"
        scores.append(score.flip(2) if is_flipped else score)
    assert len(scores) == len(sizes) * (1 + flip)
    close(result["sem_seg"], torch.stack(scores).mean(0))
    segment_map, segments = result["panoptic_seg"]
    assert segment_map.shape == (50, 71) and segments
    assert set(segment_map.unique().tolist()) - {0} == {s["id"] for s in segments}
    instances = result["instances"]
    assert instances.image_size == (50, 71) and instances.pred_masks.shape[1:] == (50, 71)
    assert instances.scores.isfinite().all()


def test_semantic_scores_of_a_mirror_image_are_mirrored():
    _, _, tta = build(tasks=("SEMANTIC_ON",), flip=True)
    image = example(0)["image"]
    one, other = tta([{"image": image}, {"image": image.flip(2)}])
    assert list(one) == ["sem_seg"] and one["sem_seg"].shape == (5, 64, 96)
    close(one["sem_seg"].flip(2), other["sem_seg"])


@pytest.mark.parametrize(
    ("key", "task"), [("PANOPTIC_ON", "panoptic_seg"), ("INSTANCE_ON", "instances")]
)
def test_only_what_is_switched_on(key, task):
    _, _, tta = build(tasks=(key,), flip=True)
    (result,) = tta([{"image": example(0)["image"]}])
    assert list(result) == [task]


def test_one_view_at_a_time_and_the_largest_first(monkeypatch):
    _, model, tta = build(sizes=(48, 80), flip=True)
    seen = []
    predict = model.predict
    monkeypatch.setattr(
        model,
        "predict",
        lambda views: seen.append([v["image"].shape for v in views]) or predict(views),
    )
    tta([{"image": example(0)["image"]}])
    assert seen == [[(3, 80, 120)]] * 2 + [[(3, 48, 72)]] * 2


def test_a_file_is_read_in_the_format_of_the_config(tmp_path):
    _, _, tta = build("INPUT.FORMAT", "BGR", tasks=("SEMANTIC_ON",))
    rgb = example(0)["image"]
    Image.fromarray(rgb.permute(1, 2, 0).numpy()).save(tmp_path / "a.png")
    from_file, given = tta([{"file_name": str(tmp_path / "a.png")}, {"image": rgb.flip(0)}])
    assert torch.equal(from_file["sem_seg"], given["sem_seg"])


class PerPixel(nn.Module):
    """The brightness of each pixel, and that of its column in the view."""

    def forward(self, batched_inputs):
        (x,) = batched_inputs
        image = x["image"].float()
        columns = torch.arange(image.shape[2]).expand(image.shape[1:])
        scores = torch.stack((image.mean(0), columns))[None]
        return [{"sem_seg": nn.functional.interpolate(scores, (x["height"], x["width"]))[0]}]


def test_other_models_with_semantic_scores():
    cfg = tiny_config("TEST.AUG.MIN_SIZES", (10,), "TEST.AUG.FLIP", True)
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 10, 13), np.uint8))
    (result,) = SemanticSegmentorWithTTA(cfg, PerPixel())([{"image": image}])
    close(result["sem_seg"][0], image.float().mean(0))
    assert (result["sem_seg"][1] == 6).all()


def test_views_that_cannot_be_undone_are_refused():
    def upside_down(sample):
        transforms = TransformList([NoOpTransform(), VFlipTransform(64)])
        return [{**sample, "image": sample["image"].flip(1), "transforms": transforms}]

    cfg, model, _ = build()
    tta = SemanticSegmentorWithTTA(cfg, model, upside_down)
    with pytest.raises(ValueError, match="VFlipTransform, which cannot be undone"):
        tta([{"image": example(0)["image"]}])


def test_it_is_in_training_as_its_model_is():
    cfg, model, tta = build()
    assert not tta.training
    assert SemanticSegmentorWithTTA(cfg, model.train()).training and model.training
