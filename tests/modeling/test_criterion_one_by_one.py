"""The criterion, which takes all layers at once, against one that takes them image by image.

The order in which points are drawn from an image's generator belongs to the results: a resumed run
must draw as an uninterrupted one, whatever is computed at once.
"""

import pytest
import torch
import torch.nn.functional as F
from peak_memory import peak_memory
from scipy.optimize import linear_sum_assignment

from mask2former.layers import chunks
from mask2former.modeling.criterion.criterion import SetCriterion
from mask2former.modeling.criterion.mask_comparison import AtPoints, WholeMasks

NUM_CLASSES, LAYERS, QUERIES, CHANNELS, SIZE, TARGET_SIZE = 4, 3, 6, 5, (12, 10), (24, 20)
WEIGHTS = {"loss_ce": 2.0, "loss_mask": 5.0, "loss_dice": 3.0}
AT_POINTS = AtPoints(50, oversample_ratio=3.0, importance_sample_ratio=0.7)


def sample(masks, points):
    """(N,H,W), (P,2) -> (N,P)"""
    grid = 2 * points.to(masks)[None, :, None] - 1
    return F.grid_sample(masks[None], grid, align_corners=False)[0, :, :, 0]


def bce(x, t):
    return (x.clamp(min=0) - x * t + (-x.abs()).exp().log1p()).mean(-1)


def focal(x, t):
    p = x.sigmoid()
    return -(0.25 * t * (1 - p) ** 2 * p.log() + 0.75 * (1 - t) * p**2 * (1 - p).log()).mean(-1)


def dice(x, t):
    p = x.sigmoid()
    return 1 - (2 * (p * t).sum(-1) + 1) / (p.sum(-1) + t.sum(-1) + 1)


def least_decided(logits, candidates, number):
    """(H,W), (P,2) -> (number,2)"""
    order = sample(logits[None], candidates)[0].abs().argsort()
    return candidates[order[:number]]


class OneByOne:
    """Losses of one layer after the other, of each image and each pair by itself, in float64."""

    def __init__(self, comparison):
        self.comparison = comparison

    def costs(self, logits, targets, generator):
        """(Q,H,W), (T,H',W') -> (Q,T)"""
        if self.comparison == WholeMasks():
            x, t = logits, F.interpolate(targets[None], logits.shape[-2:], mode="nearest")[0]
            x, t, mask_cost = x.flatten(1), t.flatten(1), focal
        else:
            points = torch.rand(1, AT_POINTS.num_points, 2, generator=generator)[0]
            x, t, mask_cost = sample(logits, points), sample(targets, points), bce
        x, t = x[:, None], t[None]
        return WEIGHTS["loss_mask"] * mask_cost(x, t) + WEIGHTS["loss_dice"] * dice(x, t)

    def match(self, layer, targets, generators):
        """Of each image the matched queries and targets."""
        matches = []
        for class_logits, mask_logits, target, generator in zip(
            layer["pred_logits"], layer["pred_masks"], targets, generators
        ):
            if len(target["labels"]) == 0:
                matches.append(([], []))
                continue
            costs = self.costs(mask_logits, target["masks"].double(), generator)
            costs = costs - WEIGHTS["loss_ce"] * class_logits.softmax(-1)[:, target["labels"]]
            targets_first = linear_sum_assignment(costs.T.detach().numpy())
            matches.append(targets_first[::-1])
        return matches

    def pairs(self, layer, targets, matches, generators):
        """Logits and values of every matched pair, where they are compared."""
        found = [
            (layer["pred_masks"][image, q], targets[image]["masks"][t].double())
            for image, (queries, matched) in enumerate(matches)
            for q, t in zip(queries, matched)
        ]
        if self.comparison == WholeMasks():
            return [
                (
                    F.interpolate(x[None, None], TARGET_SIZE, mode="bilinear").flatten(),
                    t.flatten(),
                )
                for x, t in found
            ]

        def draw(number):
            return [
                points
                for (queries, _), generator in zip(matches, generators)
                for points in torch.rand(len(queries), number, 2, generator=generator)
            ]

        candidates, others = draw(150), draw(15)
        results = []
        for (x, t), some, rest in zip(found, candidates, others):
            points = torch.cat((least_decided(x.detach(), some, 35), rest))
            results.append((sample(x[None], points)[0], sample(t[None], points)[0]))
        return results

    def __call__(self, outputs, targets, generators):
        generators = generators or [None] * len(targets)
        layers = [outputs, *outputs["aux_outputs"]]
        layers = [{k: v.double() for k, v in p.items() if k != "aux_outputs"} for p in layers]
        matches = [self.match(layer, targets, generators) for layer in layers]
        num_masks = max(1, sum(len(t["labels"]) for t in targets))
        losses = {}
        for layer, found, suffix in zip(layers, matches, ("", "_0", "_1")):
            class_logits = layer["pred_logits"]
            classes = torch.full(class_logits.shape[:2], NUM_CLASSES)
            for image, (queries, matched) in enumerate(found):
                for q, t in zip(queries, matched):
                    classes[image, q] = targets[image]["labels"][t]
            weight = torch.tensor([1.0] * NUM_CLASSES + [0.125], dtype=torch.float64)
            ce = F.cross_entropy(class_logits.transpose(1, 2), classes, weight)
            pairs = self.pairs(layer, targets, found, generators)
            mask_loss = focal if self.comparison == WholeMasks() else bce
            zero = layer["pred_masks"].sum() * 0
            terms = {
                "loss_ce": ce,
                "loss_mask": sum((mask_loss(x, t) for x, t in pairs), zero) / num_masks,
                "loss_dice": sum((dice(x, t) for x, t in pairs), zero) / num_masks,
            }
            losses |= {name + suffix: WEIGHTS[name] * loss for name, loss in terms.items()}
        return losses


def make_criterion(comparison):
    weights = {f"{name.removeprefix('loss_')}_weight": w for name, w in WEIGHTS.items()}
    weights["class_weight"] = weights.pop("ce_weight")
    return SetCriterion(
        NUM_CLASSES,
        **weights,
        no_object_weight=0.125,
        deep_supervision=True,
        comparison=comparison,
    )


def make_targets(num_targets):
    torch.manual_seed(1)
    return [
        {
            "labels": torch.randint(0, NUM_CLASSES, (n,)),
            "masks": torch.rand(n, *TARGET_SIZE) < 0.4,
        }
        for n in num_targets
    ]


def make_leaves(batch, dtype):
    """Class logits, embeddings of the queries and the pixel feature, of which masks are made."""
    torch.manual_seed(2)
    shapes = [(QUERIES, NUM_CLASSES + 1), (QUERIES, CHANNELS)] * LAYERS + [(CHANNELS, *SIZE)]
    return [torch.randn(batch, *shape).to(dtype).requires_grad_() for shape in shapes]


def make_outputs(leaves, with_products):
    *by_layer, pixel_feature = leaves
    layers = []
    for class_logits, embedding in zip(by_layer[::2], by_layer[1::2]):
        if with_products:
            masks = {"mask_embed": embedding, "pixel_feature": pixel_feature}
        else:
            masks = {"pred_masks": torch.einsum("bqc,bchw->bqhw", embedding, pixel_feature)}
        layers.append({"pred_logits": class_logits, **masks})
    return {**layers[-1], "aux_outputs": layers[:-1]}


def losses_and_gradients(criterion, leaves, outputs, targets, seeds):
    torch.manual_seed(3)
    generators = seeds and [torch.Generator().manual_seed(seed) for seed in seeds]
    losses = criterion(outputs, targets, generators)
    # Each loss counts differently: a gradient that came to another layer would show.
    total = sum((i + 1) * loss for i, loss in enumerate(losses.values()))
    return losses, torch.autograd.grad(total, leaves, retain_graph=True)


@pytest.mark.parametrize("with_products", [False, True], ids=["masks", "products"])
@pytest.mark.parametrize("comparison", [AT_POINTS, WholeMasks()], ids=["points", "whole"])
@pytest.mark.parametrize("chunk_bytes", [1, 10_000, 2**25])
@pytest.mark.parametrize("num_targets", [[3], [2, 0, 4], [0, 0], [QUERIES + 3, 1]])
@pytest.mark.parametrize("is_seeded", [True, False])
def test_losses_and_gradients(
    comparison, num_targets, is_seeded, chunk_bytes, with_products, monkeypatch
):
    monkeypatch.setattr(chunks, "CHUNK_BYTES", chunk_bytes)
    leaves = make_leaves(len(num_targets), torch.float64)
    targets = make_targets(num_targets)
    seeds = range(5, 5 + len(num_targets)) if is_seeded else None
    given, masks = make_outputs(leaves, with_products), make_outputs(leaves, False)
    result = losses_and_gradients(make_criterion(comparison), leaves, given, targets, seeds)
    expected = losses_and_gradients(OneByOne(comparison), leaves, masks, targets, seeds)
    assert list(result[0]) == list(expected[0])
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("with_products", [False, True], ids=["masks", "products"])
@pytest.mark.parametrize("comparison", [AT_POINTS, WholeMasks()], ids=["points", "whole"])
def test_predictions_of_lower_precision(comparison, with_products, dtype):
    """The criterion itself works in float32; gradients have the type of what they are of."""
    targets = make_targets([2, 3])
    leaves = make_leaves(2, dtype)
    doubles = [leaf.detach().double().requires_grad_() for leaf in leaves]
    outputs = make_outputs(leaves, with_products)
    losses, gradients = losses_and_gradients(
        make_criterion(comparison), leaves, outputs, targets, [1, 2]
    )
    assert all(loss.dtype == torch.float32 for loss in losses.values())
    assert all(gradient.dtype == dtype for gradient in gradients)
    expected = losses_and_gradients(
        OneByOne(comparison), doubles, make_outputs(doubles, False), targets, [1, 2]
    )
    # Masks of half precision are rounded where they are made, products of it are not.
    is_rounded = dtype == torch.bfloat16
    close = {"rtol": 1e-4, "atol": 1e-5, "check_dtype": False}
    rough = {"rtol": 0.05, "atol": 0.05, "check_dtype": False}
    torch.testing.assert_close(
        losses, expected[0], **(rough if is_rounded and not with_products else close)
    )
    torch.testing.assert_close(gradients, expected[1], **(rough if is_rounded else close))


def test_embeddings_without_a_pixel_feature_are_somebody_elses():
    """A decoder of another project may give them beside its masks."""
    leaves, targets = make_leaves(1, torch.float64), make_targets([2])
    outputs, others = (make_outputs(leaves, with_products=False) for _ in range(2))
    for layer in (others, *others["aux_outputs"]):
        layer["mask_embed"] = torch.zeros(1, QUERIES, 7)
    criterion = make_criterion(AT_POINTS)
    expected = losses_and_gradients(criterion, leaves, outputs, targets, [1])
    torch.testing.assert_close(
        losses_and_gradients(criterion, leaves, others, targets, [1]), expected
    )


def test_not_all_masks_are_made_nor_their_gradients():
    """With the queries' embeddings and the pixel feature; of 200 queries, 2 are matched."""
    torch.manual_seed(4)
    leaves = [torch.randn(1, 200, n, requires_grad=True) for n in (NUM_CLASSES + 1, 8) * LAYERS]
    leaves.append(torch.randn(1, 8, 100, 100, requires_grad=True))
    targets = [{"labels": torch.tensor([1, 2]), "masks": torch.rand(2, 100, 100) < 0.4}]
    criterion, all_masks = make_criterion(AT_POINTS), LAYERS * 200 * 100 * 100 * 4

    def peak(with_products):
        def step():
            losses = criterion(make_outputs(leaves, with_products), targets)
            torch.autograd.grad(sum(losses.values()), leaves)

        return peak_memory(step)[1]

    assert peak(True) < 0.1 * all_masks < all_masks < peak(False) < 2.2 * all_masks
