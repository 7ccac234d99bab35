import math

import pytest
import torch
import torch.nn.functional as F

from mask2former.modeling.criterion.criterion import SetCriterion
from mask2former.modeling.criterion.mask_comparison import AtPoints
from mask2former.modeling.criterion.predicted_masks import GivenMasks

NUM_CLASSES, QUERIES, SIZE = 4, 6, (16, 20)


def make_criterion(**changes):
    arguments = {
        "class_weight": 2.0,
        "mask_weight": 5.0,
        "dice_weight": 5.0,
        "no_object_weight": 0.1,
        "deep_supervision": True,
        "comparison": AtPoints(64, oversample_ratio=3.0, importance_sample_ratio=0.75),
    }
    return SetCriterion(NUM_CLASSES, **(arguments | changes))


def make_targets(num_targets):
    torch.manual_seed(5)
    return [
        {"labels": torch.randint(0, NUM_CLASSES, (n,)), "masks": torch.rand(n, 64, 80) < 0.4}
        for n in num_targets
    ]


def make_outputs(batch, num_layers=3):
    torch.manual_seed(6)
    predictions = [
        {
            "pred_logits": torch.randn(batch, QUERIES, NUM_CLASSES + 1, requires_grad=True),
            "pred_masks": torch.randn(batch, QUERIES, *SIZE, requires_grad=True),
        }
        for _ in range(num_layers)
    ]
    return {**predictions[-1], "aux_outputs": predictions[:-1]}


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def leaves(outputs):
    return [p[k] for p in (outputs, *outputs["aux_outputs"]) for k in ("pred_logits", "pred_masks")]


def test_losses_have_the_official_names_in_their_order():
    losses = make_criterion()(make_outputs(2), make_targets([2, 3]))
    assert list(losses) == [
        f"loss_{kind}{layer}" for layer in ("", "_0", "_1") for kind in ("ce", "mask", "dice")
    ]


def test_without_deep_supervision_only_the_last_layer_counts():
    losses = make_criterion(deep_supervision=False)(make_outputs(2), make_targets([2, 3]))
    assert list(losses) == ["loss_ce", "loss_mask", "loss_dice"]


def test_right_predictions_cost_nothing_and_wrong_ones_much():
    targets = [{"labels": torch.tensor([1, 3]), "masks": torch.zeros(2, 64, 80)}]
    targets[0]["masks"][0, :32] = 1
    targets[0]["masks"][1, 32:, 40:] = 1
    class_logits = torch.zeros(1, QUERIES, NUM_CLASSES + 1)
    mask_logits = torch.full((1, QUERIES, 64, 80), -30.0)
    class_logits[..., -1] = 30.0  # no object
    for query, target in ((4, 0), (2, 1)):
        class_logits[0, query, -1] = 0
        class_logits[0, query, targets[0]["labels"][target]] = 30
        mask_logits[0, query] = targets[0]["masks"][target] * 60 - 30
    criterion = make_criterion(comparison=AtPoints(500, 3.0, importance_sample_ratio=0.0))
    right = criterion(
        {"pred_logits": class_logits, "pred_masks": mask_logits, "aux_outputs": []}, targets
    )
    wrong = criterion(
        {"pred_logits": -class_logits, "pred_masks": -mask_logits, "aux_outputs": []}, targets
    )
    assert right["loss_ce"] < 1e-4
    # Points on the border between pixels see a target between 0 and 1.
    assert right["loss_mask"] < 10 and right["loss_dice"] < 0.4
    assert wrong["loss_ce"] > 10 and wrong["loss_mask"] > 30 and wrong["loss_dice"] > 1


def test_class_loss_is_the_weighted_mean_over_the_rank():
    """Against torch's cross-entropy for the assignment that is evident from the masks."""
    outputs = make_outputs(1, num_layers=1)
    target = {"labels": torch.tensor([2]), "masks": torch.zeros(1, *SIZE)}
    target["masks"][0, 4:12, 5:15] = 1
    query = 3
    with torch.no_grad():
        outputs["pred_masks"][0, query] = target["masks"][0] * 40.0 - 20
    losses = make_criterion()(outputs, [target])
    classes = torch.full((1, QUERIES), NUM_CLASSES)
    classes[0, query] = target["labels"][0]
    weight = torch.tensor([1.0] * NUM_CLASSES + [0.1])
    expected = 2 * F.cross_entropy(outputs["pred_logits"].transpose(1, 2), classes, weight)
    torch.testing.assert_close(losses["loss_ce"], expected)


def test_class_weights_count_in_the_class_loss():
    outputs, targets = make_outputs(1, num_layers=1), make_targets([5])
    class_weights = [0.5, 1.0, 3.0, 2.0]
    criterion = make_criterion(class_weights=class_weights)
    matches = criterion.matcher(
        outputs["pred_logits"][None],
        GivenMasks([outputs["pred_masks"]]),
        [targets[0]["labels"]],
        [targets[0]["masks"]],
        generators(1),
    )
    classes = torch.full((1, QUERIES), NUM_CLASSES)
    classes[0, matches.query[0]] = targets[0]["labels"][matches.target[0]]
    expected = 2 * F.cross_entropy(
        outputs["pred_logits"].transpose(1, 2), classes, torch.tensor([*class_weights, 0.1])
    )
    losses = criterion(outputs, targets, generators(1))
    torch.testing.assert_close(losses["loss_ce"], expected)
    unweighted = make_criterion()(outputs, targets, generators(1))
    assert (unweighted["loss_ce"] - expected).abs() > 0.01
    assert torch.equal(unweighted["loss_mask"], losses["loss_mask"])


def test_there_is_a_weight_for_each_class():
    with pytest.raises(ValueError, match="3 class weights, but 4 classes"):
        make_criterion(class_weights=[1.0, 1.0, 1.0])


def test_the_configs_class_weights_outlive_a_checkpoint():
    criterion = make_criterion(no_object_weight=0.4, class_weights=[1.0, 2.0, 3.0, 4.0])
    assert list(criterion.state_dict()) == ["empty_weight"]  # official key
    loaded = {"empty_weight": torch.full((20,), 7.0)}  # of another NUM_CLASSES, even
    criterion.load_state_dict(loaded)
    torch.testing.assert_close(criterion.empty_weight, torch.tensor([1.0, 2.0, 3.0, 4.0, 0.4]))
    assert (loaded["empty_weight"] == 7).all()
    parent = torch.nn.ModuleDict({"criterion": criterion})
    parent.load_state_dict({"criterion.empty_weight": torch.zeros(5)})
    assert criterion.empty_weight[-1] == pytest.approx(0.4)


def test_mask_losses_are_divided_by_the_number_of_targets():
    """A batch of the same image twice costs what the image costs once."""
    outputs = make_outputs(1)
    twice = {
        "pred_logits": outputs["pred_logits"].repeat(2, 1, 1),
        "pred_masks": outputs["pred_masks"].repeat(2, 1, 1, 1),
        "aux_outputs": [],
    }
    targets = make_targets([3])
    criterion = make_criterion(deep_supervision=False)
    once_losses = criterion(outputs, targets, generators(1))
    twice_losses = criterion(twice, targets * 2, generators(1, 1))
    for name, loss in once_losses.items():
        torch.testing.assert_close(twice_losses[name], loss)


def test_an_images_points_do_not_depend_on_its_companions():
    outputs, targets = make_outputs(2), make_targets([2, 3])
    criterion = make_criterion(class_norm_over_ranks=True)
    both = criterion(outputs, targets, generators(11, 12))
    for name in ("loss_mask", "loss_dice_0"):
        alone = 0
        for image, seed, count in ((0, 11, 2), (1, 12, 3)):
            one = {k: outputs[k][image : image + 1] for k in ("pred_logits", "pred_masks")}
            one["aux_outputs"] = [
                {k: v[image : image + 1] for k, v in aux.items()} for aux in outputs["aux_outputs"]
            ]
            alone += count * criterion(one, [targets[image]], generators(seed))[name]
        torch.testing.assert_close(both[name], alone / 5)


def test_same_seeds_same_losses_and_other_seeds_others():
    outputs, targets = make_outputs(1), make_targets([2])
    criterion = make_criterion()
    first = criterion(outputs, targets, generators(1))
    torch.rand(7)  # the global generator is not asked
    again = criterion(outputs, targets, generators(1))
    other = criterion(outputs, targets, generators(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("num_targets", [[0, 0], [2, 0], [0, 1]])
def test_images_without_targets_still_give_every_output_a_finite_gradient(num_targets):
    outputs = make_outputs(2)
    losses = make_criterion()(outputs, make_targets(num_targets))
    sum(losses.values()).backward()
    for leaf in leaves(outputs):
        assert leaf.grad is not None and leaf.grad.isfinite().all()
    if sum(num_targets) == 0:
        assert losses["loss_mask"] == losses["loss_dice_1"] == 0
        expected = -2 * outputs["pred_logits"].log_softmax(-1)[..., -1].mean()
        torch.testing.assert_close(losses["loss_ce"], expected)


def test_more_targets_than_queries():
    outputs = make_outputs(1)
    losses = make_criterion()(outputs, make_targets([QUERIES + 3]))
    assert all(loss.isfinite() for loss in losses.values())


def test_broken_predictions_give_a_broken_loss_and_no_error():
    outputs = make_outputs(2)
    with torch.no_grad():
        outputs["pred_masks"][0] = math.nan
        outputs["aux_outputs"][0]["pred_logits"][1] = math.inf
    losses = make_criterion()(outputs, make_targets([2, 2]))
    assert not losses["loss_mask"].isfinite()
    assert not losses["loss_ce_0"].isfinite()
    assert losses["loss_mask_1"].isfinite()


def test_losses_are_single_precision_under_autocast():
    targets = make_targets([2, 3])
    outputs = make_outputs(2)
    half = {
        "pred_logits": outputs["pred_logits"].bfloat16(),
        "pred_masks": outputs["pred_masks"].bfloat16(),
        "aux_outputs": [],
    }
    rounded = {k: v.float() if k != "aux_outputs" else v for k, v in half.items()}
    criterion = make_criterion()
    expected = criterion(rounded, targets, generators(1, 2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = criterion(half, targets, generators(1, 2))
    for name, loss in losses.items():
        assert loss.dtype == torch.float32
        assert torch.equal(loss, expected[name])


def test_targets_may_be_of_another_size_than_the_predictions():
    """Points are relative, so masks at stride 1 and 4 agree on a coarse mask."""
    outputs = make_outputs(1)
    coarse = torch.zeros(1, *SIZE)
    coarse[0, 4:12, 5:15] = 1
    fine = coarse.repeat_interleave(4, 1).repeat_interleave(4, 2)
    labels = torch.tensor([1])
    criterion = make_criterion(comparison=AtPoints(4000, 3.0, 0.75))
    small = criterion(outputs, [{"labels": labels, "masks": coarse}], generators(1))
    large = criterion(outputs, [{"labels": labels, "masks": fine}], generators(1))
    for name in small:
        assert abs(small[name] - large[name]) < 0.05 * small[name]
