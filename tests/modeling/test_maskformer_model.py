import itertools

import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Instances
from inference_cases import full_size
from tiny_model import as_labels, as_runs, example, tiny_config

from mask2former.layers.frames import pad_to
from mask2former.modeling.inference import semantic_inference, tight_boxes
from mask2former.modeling.maskformer_model import Prediction, prepare_target

LOSSES = [f"loss_{kind}{i}" for i in ("", "_0", "_1", "_2") for kind in ("ce", "mask", "dice")]


def build(*overrides):
    torch.manual_seed(0)
    return build_model(tiny_config(*overrides))


def losses_of(model, batch):
    return model.train()(batch)


def test_training_returns_the_official_losses_with_gradients_for_all():
    model = build()
    losses = losses_of(model, [example(0), example(1, num_targets=1)])
    assert list(losses) == LOSSES
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_batch_without_targets_has_gradients_for_all():
    """A process that gets none for some parameter would make the others wait for ever."""
    model = build()
    sum(losses_of(model, [example(0, 0), example(1, 0)]).values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    assert model.sem_seg_head.predictor.class_embed.weight.grad.abs().sum() > 0


def test_weights_of_the_losses_come_from_the_config():
    batch = [example(0)]
    plain = losses_of(build(*("MODEL.MASK_FORMER.DEC_LAYERS", 2)), batch)
    # Twice all the weights is the same matching and twice the losses.
    twice = losses_of(
        build(
            *("MODEL.MASK_FORMER.DEC_LAYERS", 2),
            *("MODEL.MASK_FORMER.CLASS_WEIGHT", 2.0),
            *("MODEL.MASK_FORMER.MASK_WEIGHT", 40.0),
            *("MODEL.MASK_FORMER.DICE_WEIGHT", 2.0),
        ),
        batch,
    )
    for name, loss in plain.items():
        torch.testing.assert_close(twice[name], 2 * loss)


def test_without_deep_supervision_every_parameter_still_learns():
    model = build("MODEL.MASK_FORMER.DEEP_SUPERVISION", False)
    losses = losses_of(model, [example(0)])
    assert list(losses) == LOSSES[:3]
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.parameters())


def in_a_frame(sample, make_masks, size=(64, 96)):
    instances = Instances(size, gt_classes=sample["instances"].gt_classes)
    instances.gt_masks = make_masks(sample["instances"].gt_masks, size)
    return {**sample, "instances": instances, "padded_size": size}


@pytest.mark.parametrize(
    "make_masks",
    [lambda masks, size: BitMasks(pad_to(masks, size)), as_labels, as_runs],
    ids=["BitMasks", "LabelMasks", "RunLengthMasks"],
)
def test_masks_may_come_in_any_form(make_masks):
    """Of a picture smaller than its frame, in a batch that is larger than this."""
    model = build()
    small, other = example(0, height=40, width=72), example(1, height=90)
    small["instances"].gt_masks = as_labels(small["instances"].gt_masks, (40, 72)).tensor
    whole = in_a_frame(small, pad_to) | {"image": pad_to(small["image"], (64, 96), 128)}
    expected = losses_of(model, [whole, other])
    result = losses_of(model, [in_a_frame(small, make_masks), other])
    assert all(torch.equal(result[name], expected[name]) for name in expected)


def test_seeded_losses_are_repeatable_and_others_draw_from_torchs_generator():
    model = build().train()
    batch = [example(3)]
    assert model(batch)["loss_mask"] == model(batch)["loss_mask"]
    del batch[0]["seed"]
    assert model(batch)["loss_mask"] != model(batch)["loss_mask"]
    torch.manual_seed(1)
    first = model(batch)["loss_mask"]
    torch.manual_seed(1)
    assert model(batch)["loss_mask"] == first


def test_target_is_padded_with_background():
    target = prepare_target(example(0), (96, 128), torch.device("cpu"))
    assert target["masks"].shape == (3, 96, 128) and target["masks"].dtype == torch.bool
    assert not target["masks"][:, 64:].any() and not target["masks"][:, :, 96:].any()
    assert torch.equal(target["masks"][:, :64, :96], example(0)["instances"].gt_masks)


def test_training_without_instances_names_the_file():
    batch = [example(7)]
    del batch[0]["instances"]
    with pytest.raises(ValueError, match=r"7\.png: no 'instances'"):
        losses_of(build(), batch)


@pytest.mark.parametrize("before", [False, True])
def test_semantic_output_has_the_size_asked_for(before):
    model = build("MODEL.MASK_FORMER.TEST.SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE", before).eval()
    small = example(1, height=40, width=72)
    with torch.no_grad():
        results = model([{**example(0), "height": 100, "width": 50}, small])
    assert [tuple(r["sem_seg"].shape) for r in results] == [(5, 100, 50), (5, 40, 72)]
    assert all(list(r) == ["sem_seg"] for r in results)


def test_semantic_output_is_the_head_upsampled_and_cut():
    model = build().eval()
    image = example(0, height=40, width=72)  # padded to 64 x 96
    captured = {}
    model.sem_seg_head.register_forward_hook(lambda _, __, output: captured.update(output))
    with torch.no_grad():
        result = model([image])[0]["sem_seg"]
    masks = torch.nn.functional.interpolate(captured["pred_masks"], (64, 96), mode="bilinear")[0]
    expected = semantic_inference(captured["pred_logits"][0], full_size(masks))[:, :40, :72]
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)


def test_all_three_outputs():
    name = "tiny_model_panoptic_train"
    MetadataCatalog.get(name).set(thing_dataset_id_to_contiguous_id={21: 1, 23: 3})
    model = build(
        *("DATASETS.TRAIN", (name,)),
        *("MODEL.MASK_FORMER.TEST.PANOPTIC_ON", True),
        *("MODEL.MASK_FORMER.TEST.INSTANCE_ON", True),
        *("TEST.DETECTIONS_PER_IMAGE", 20),
    ).eval()
    with torch.no_grad():
        (result,) = model([{**example(0), "height": 50, "width": 70}])
    assert result["sem_seg"].shape == (5, 50, 70)
    segment_map, segments = result["panoptic_seg"]
    assert segment_map.shape == (50, 70) and segments
    assert set(segment_map.unique().tolist()) - {0} == {s["id"] for s in segments}
    assert all(s["isthing"] == (s["category_id"] in (1, 3)) for s in segments)
    instances = result["instances"]
    assert 0 < len(instances) <= 20
    assert set(instances.pred_classes.tolist()) <= {1, 3}
    assert torch.equal(instances.pred_boxes.tensor, tight_boxes(instances.pred_masks))


TASKS = {"SEMANTIC_ON": "sem_seg", "PANOPTIC_ON": "panoptic_seg", "INSTANCE_ON": "instances"}


def build_for(keys, *overrides):
    """A model with these of TASKS switched on."""
    name = "tiny_model_tasks_train"
    MetadataCatalog.get(name).set(thing_dataset_id_to_contiguous_id={21: 1, 23: 3})
    switches = [x for key in TASKS for x in (f"MODEL.MASK_FORMER.TEST.{key}", key in keys)]
    return build("DATASETS.TRAIN", (name,), *switches, *overrides).eval()


@pytest.mark.parametrize(
    "keys", [keys for n in (1, 2, 3) for keys in itertools.combinations(TASKS, n)]
)
def test_any_combination_of_tasks(keys):
    with torch.no_grad():
        (result,) = build_for(keys)([example(0)])
    assert list(result) == [TASKS[key] for key in keys]


def test_results_have_no_gradients():
    model = build_for(TASKS)
    (result,) = model([example(0)])
    (segment_map, segments), instances = result["panoptic_seg"], result["instances"]
    with torch.no_grad():
        (expected,) = model([example(0)])
    assert not result["sem_seg"].requires_grad and not instances.scores.requires_grad
    assert torch.equal(result["sem_seg"], expected["sem_seg"])
    assert torch.equal(segment_map, expected["panoptic_seg"][0])
    assert segments == expected["panoptic_seg"][1]
    assert torch.equal(instances.pred_masks, expected["instances"].pred_masks)


def test_no_task_at_all_is_a_mistake():
    with pytest.raises(ValueError, match=r"are all False.*set one of them to True"):
        build_for(())


def test_images_of_several_sizes_need_not_say_the_outputs():
    model = build_for(TASKS)
    batch = [example(0), example(1, height=40, width=72), example(2, height=64, width=33)]
    with torch.no_grad():
        results = model([{"image": x["image"]} for x in batch])
        (alone,) = model([{"image": batch[0]["image"]}])
    for x, result in zip(batch, results):
        size = x["image"].shape[1:]
        assert result["sem_seg"].shape[1:] == result["panoptic_seg"][0].shape == size
        assert result["instances"].image_size == size
    # The largest image has the padding that it has alone.
    torch.testing.assert_close(results[0]["sem_seg"], alone["sem_seg"], rtol=1e-4, atol=1e-4)
    assert results[0]["panoptic_seg"][1] == alone["panoptic_seg"][1]


def test_nothing_found():
    model = build_for(
        TASKS,
        *("MODEL.MASK_FORMER.TEST.OBJECT_MASK_THRESHOLD", 1.0),
        *("MODEL.MASK_FORMER.TEST.SCORE_THRESHOLD", 1.0),
    )
    with torch.no_grad():
        (result,) = model([{**example(0), "height": 50, "width": 70}])
    segment_map, segments = result["panoptic_seg"]
    assert segment_map.shape == (50, 70) and not segment_map.any() and segments == []
    assert len(result["instances"]) == 0
    assert result["instances"].pred_masks.shape == (0, 50, 70)
    assert result["instances"].pred_boxes.tensor.shape == (0, 4)
    assert result["sem_seg"].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits(dtype):
    model = build_for(TASKS)
    torch.manual_seed(0)
    logits = torch.randn(10, 6).to(dtype), 4 * torch.randn(10, 16, 24).to(dtype)
    sizes = (64, 96), (64, 90)
    half = model.infer(Prediction(*logits, *sizes), (32, 45))
    full = model.infer(Prediction(*(x.float() for x in logits), *sizes), (32, 45))
    assert half["sem_seg"].dtype == torch.float32
    assert torch.equal(half["sem_seg"], full["sem_seg"])
    assert torch.equal(half["panoptic_seg"][0], full["panoptic_seg"][0])
    assert torch.equal(half["instances"].scores, full["instances"].scores)


def test_things_of_a_dataset_of_instances_are_all_classes():
    MetadataCatalog.get("tiny_model_instances").set(thing_classes=list("abcde"))
    MetadataCatalog.get("tiny_model_stuff").set(stuff_classes=list("abcde"))
    assert build("DATASETS.TRAIN", ("tiny_model_instances",)).thing_classes == set(range(5))
    assert build("DATASETS.TRAIN", ("tiny_model_stuff",)).thing_classes == set()
    assert build("DATASETS.TRAIN", ()).thing_classes == set()


@pytest.mark.parametrize(
    ("names", "reason"), [((), "are empty"), (("tiny_model_unknown",), "tiny_model_unknown has")]
)
def test_panoptic_needs_to_know_the_things(names, reason):
    with pytest.raises(ValueError, match=f"which classes are things, but .*{reason}"):
        build("DATASETS.TRAIN", names, "MODEL.MASK_FORMER.TEST.PANOPTIC_ON", True)


def test_an_evaluation_needs_no_training_set():
    name = "tiny_model_only_val"
    MetadataCatalog.get(name).set(thing_dataset_id_to_contiguous_id={21: 1})
    model = build("DATASETS.TRAIN", (), "DATASETS.TEST", (name,))
    assert model.thing_classes == {1}


def test_instances_of_all_classes_without_panoptic():
    model = build(
        *("MODEL.MASK_FORMER.TEST.SEMANTIC_ON", False),
        *("MODEL.MASK_FORMER.TEST.INSTANCE_ON", True),
        *("TEST.DETECTIONS_PER_IMAGE", 7),
    ).eval()
    with torch.no_grad():
        (result,) = model([example(0)])
    assert list(result) == ["instances"] and len(result["instances"]) == 7


def test_size_divisibility_falls_back_to_the_backbones():
    model = build("MODEL.MASK_FORMER.SIZE_DIVISIBILITY", -1)
    assert model.size_divisibility == model.backbone.size_divisibility
    assert model.preprocess([example(0, height=40)]).tensor.shape[-2:] == (
        (40, 96) if model.size_divisibility == 0 else (64, 96)
    )


def test_mixed_precision_trains_and_infers():
    model = build()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = losses_of(model, [example(0), example(1)])
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        (result,) = model.eval()([example(0)])
    assert result["sem_seg"].dtype == torch.float32 and result["sem_seg"].isfinite().all()
