import numpy as np
import pytest
import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model, build_sem_seg_head
from tiny_model import tiny_config

from mask2former.modeling.head.per_pixel_baseline import per_pixel_loss

SHAPES = {f"res{i}": ShapeSpec(channels=8 * i, stride=2**i) for i in (2, 3, 4, 5)}
HEADS = ("PerPixelBaselineHead", "PerPixelBaselinePlusHead")


def config(name, *overrides):
    return tiny_config(
        *("MODEL.META_ARCHITECTURE", "SemanticSegmentor"),
        *("MODEL.SEM_SEG_HEAD.NAME", name),
        *("MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME", "BasePixelDecoder"),
        *("MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE", "res5"),
        *("MODEL.MASK_FORMER.NUM_OBJECT_QUERIES", 5),
        *overrides,
    )


def build(name, *overrides):
    torch.manual_seed(0)
    return build_sem_seg_head(config(name, *overrides), SHAPES)


def make_features(height=64, width=96):
    torch.manual_seed(1)
    return {
        name: torch.randn(2, s.channels, -(-height // s.stride), -(-width // s.stride))
        for name, s in SHAPES.items()
    }


def make_targets(height=64, width=96):
    torch.manual_seed(2)
    targets = torch.randint(0, 5, (2, height, width))
    targets[:, : height // 3] = 255
    return targets


def test_loss_agrees_with_a_loop():
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    targets = torch.randint(0, 4, (2, 4, 5))
    targets[targets == 3] = 65535
    terms = []
    for image, label_map in zip(logits.numpy(), targets.numpy()):
        for y, x in np.argwhere(label_map != 65535):
            pixel = image[:, y, x]
            terms.append(np.log(np.exp(pixel).sum()) - pixel[label_map[y, x]])
    loss = per_pixel_loss(logits, targets, 65535)
    np.testing.assert_allclose(loss, np.mean(terms))


@pytest.mark.parametrize("name", HEADS)
def test_batch_of_ignored_pixels_costs_nothing(name):
    head = build(name)
    _, losses = head(make_features(), torch.full((2, 64, 96), 255))
    sum(losses.values()).backward()
    assert all(loss == 0 for loss in losses.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


@pytest.mark.parametrize(
    ("name", "names"),
    [
        (HEADS[0], ["loss_sem_seg"]),
        (HEADS[1], ["loss_sem_seg", "loss_sem_seg_0", "loss_sem_seg_1", "loss_sem_seg_2"]),
    ],
)
def test_training_gives_weighted_losses(name, names):
    features, targets = make_features(), make_targets()
    logits, losses = build(name)(features, targets)
    assert logits is None and list(losses) == names
    _, weighted = build(name, "MODEL.SEM_SEG_HEAD.LOSS_WEIGHT", 0.25)(features, targets)
    for key, loss in losses.items():
        torch.testing.assert_close(weighted[key], loss / 4)
    logits, losses = build(name).eval()(features)
    assert logits.shape == (2, 5, 64, 96) and losses == {}
    expected = F.cross_entropy(logits, targets, ignore_index=255)
    torch.testing.assert_close(weighted["loss_sem_seg"] * 4, expected)


def test_without_deep_supervision_there_is_one_loss():
    head = build(HEADS[1], "MODEL.MASK_FORMER.DEEP_SUPERVISION", False)
    _, losses = head(make_features(), make_targets())
    assert list(losses) == ["loss_sem_seg"]


@pytest.mark.parametrize("name", HEADS)
def test_sizes_that_do_not_divide_evenly(name):
    """The pixel feature covers 72 x 104; the target ends where the image does."""
    features, targets = make_features(70, 101), make_targets(70, 101)
    _, losses = build(name)(features, targets)
    logits, _ = build(name).eval()(features)
    assert logits.shape == (2, 5, 72, 104)
    expected = F.cross_entropy(logits[..., :70, :101], targets, ignore_index=255)
    torch.testing.assert_close(losses["loss_sem_seg"], expected)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("pixel_decoder", ["MSDeformAttnPixelDecoder", "BasePixelDecoder"])
def test_semantic_segmentor_trains_and_infers(name, pixel_decoder):
    torch.manual_seed(0)
    model = build_model(config(name, "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME", pixel_decoder))
    batch = [
        {"image": torch.randint(0, 256, (3, 64, 96)), "sem_seg": make_targets()[0]},
        {"image": torch.randint(0, 256, (3, 50, 70)), "sem_seg": make_targets(50, 70)[1]},
    ]
    sum(model(batch).values()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    with torch.no_grad():
        results = model.eval()([{**batch[1], "height": 25, "width": 35}])
    assert results[0]["sem_seg"].shape == (5, 25, 35)


def test_it_learns():
    """The loss of a few pictures goes far below that of guessing."""
    torch.manual_seed(0)
    head = build(HEADS[1])
    features, targets = make_features(), make_targets() * 0
    targets[:, :, 48:] = 3
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3)
    for _ in range(20):
        _, losses = head(features, targets)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    assert losses["loss_sem_seg"] < 0.4


def test_mixed_precision_has_single_precision_losses():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, losses = build(HEADS[1])(make_features(), make_targets())
    _, expected = build(HEADS[1])(make_features(), make_targets())
    for name, loss in losses.items():
        assert loss.dtype == torch.float32
        assert abs(loss - expected[name]) < 0.05 * expected[name]


@pytest.mark.parametrize("name", HEADS)
def test_early_official_keys_load(name):
    """They have the pixel decoder's weights at the head itself; ours say that they do not."""
    head = build(name)
    state = head.state_dict()
    assert state._metadata[""]["version"] == 2
    early = {k.removeprefix("pixel_decoder."): v + 1 for k, v in state.items()}
    assert {"mask_features.weight", "layer_4.weight", "adapter_1.norm.bias"} <= set(early)
    head.load_state_dict(early)
    for key, value in head.state_dict().items():
        assert torch.equal(value, early[key.removeprefix("pixel_decoder.")]), key


def test_predictor_starts_as_officially():
    head = build(HEADS[0], "MODEL.SEM_SEG_HEAD.MASK_DIM", 512)
    assert head.predictor.weight.shape == (5, 512, 1, 1)
    # Kaiming's normal distribution by fan-out.
    assert head.predictor.weight.std().item() == pytest.approx((2 / 5) ** 0.5, rel=0.05)
    assert (head.predictor.bias == 0).all()


def test_baseline_plus_needs_a_query_for_each_class():
    with pytest.raises(ValueError, match=r"NUM_OBJECT_QUERIES=100, but .*; set it to 5"):
        build(HEADS[1], "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES", 100)


def test_baseline_plus_looks_at_one_feature_map():
    with pytest.raises(ValueError, match="looks at one feature map"):
        build(HEADS[1], "MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE", "multi_scale_pixel_decoder")
