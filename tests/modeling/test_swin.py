"""Swin against attention token by token, at any size, and what its config asks for."""

import math

import mask2former  # noqa: F401  isort: skip
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone
from detectron2.projects.deeplab import add_deeplab_config
from torch import nn

from mask2former.config import add_maskformer2_config
from mask2former.engine.optimizer import build_optimizer, parameter_settings
from mask2former.modeling.backbone.swin_blocks import (
    DropPath,
    PatchMerging,
    SwinBlock,
    SwinStage,
    blocked_by_shift,
    from_windows,
    relative_position_index,
    to_windows,
)


def swin_config(**keys):
    cfg = get_cfg()
    add_deeplab_config(cfg)
    add_maskformer2_config(cfg)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BACKBONE.NAME = "D2SwinTransformer"
    small = {"EMBED_DIM": 16, "DEPTHS": [2, 2, 2, 2], "NUM_HEADS": [1, 2, 4, 4], "WINDOW_SIZE": 3}
    for key, value in (small | keys).items():
        cfg.MODEL.SWIN[key] = value
    return cfg


def build_swin(**keys):
    torch.manual_seed(0)
    return build_backbone(swin_config(**keys))


def window_of(y, x, size, window, shift):
    """Which window the token at (y, x) lies in, and whether beyond the seam of the rolled grid."""
    rolled = [(i - shift) % n for i, n in zip((y, x), size)]
    return [(place // window, i < shift) for place, i in zip(rolled, (y, x))]


def attend_token_by_token(attention, grid, window, shift):
    """What `SwinBlock.attend` computes for one image (H,W,C), with a loop over pairs of tokens."""
    height, width, dim = grid.shape
    size = tuple(math.ceil(n / window) * window for n in (height, width))
    padded = torch.zeros(*size, dim, dtype=grid.dtype)
    padded[:height, :width] = grid
    heads = attention.num_heads
    query, key, value = attention.qkv(padded).unflatten(-1, (3, heads, dim // heads)).unbind(2)
    scale = attention.qk_scale or (dim // heads) ** -0.5
    tokens = [(y, x) for y in range(size[0]) for x in range(size[1])]
    result = torch.zeros(height, width, dim, dtype=grid.dtype)
    for y, x in tokens:
        if y >= height or x >= width:
            continue
        place = window_of(y, x, size, window, shift)
        seen = [t for t in tokens if window_of(*t, size, window, shift) == place]
        attended = []
        for head in range(heads):
            logits = []
            for v, u in seen:
                # within a window both have been rolled alike: the offset is that of the image
                row = (y - v + window - 1) * (2 * window - 1) + x - u + window - 1
                bias = attention.relative_position_bias_table[row, head]
                logits.append(scale * (query[y, x, head] @ key[v, u, head]) + bias)
            weights = torch.stack(logits).softmax(0)
            attended.append(sum(w * value[v, u, head] for w, (v, u) in zip(weights, seen)))
        result[y, x] = attention.proj(torch.cat(attended))
    return result


@pytest.mark.parametrize("qkv_bias, qk_scale", [(True, None), (False, 0.7)])
@pytest.mark.parametrize("shift", [0, 1, 2])
@pytest.mark.parametrize("size", [(6, 9), (7, 5), (2, 2), (4, 10)])
def test_shifted_window_attention(size, shift, qkv_bias, qk_scale):
    torch.manual_seed(0)
    window = 4 if shift == 2 else 3
    block = SwinBlock(
        8,
        window,
        shift,
        2,
        mlp_ratio=2.0,
        dropout=0.0,
        drop_path=0.0,
        qkv_bias=qkv_bias,
        qk_scale=qk_scale,
        attention_dropout=0.0,
    ).double()
    nn.init.normal_(block.attn.relative_position_bias_table)
    grid = torch.randn(2, *size, 8, dtype=torch.double)
    padded = tuple(math.ceil(n / window) * window for n in size)
    blocked = blocked_by_shift(padded, window, shift, grid.device)
    result = block.attend(grid, blocked)
    expected = torch.stack(
        [attend_token_by_token(block.attn, image, window, shift) for image in grid]
    )
    torch.testing.assert_close(result, expected)


def test_windows_and_back():
    grid = torch.arange(2 * 6 * 9 * 4).view(2, 6, 9, 4)
    windows = to_windows(grid, 3)
    assert windows.shape == (2 * 6, 9, 4)
    # window 4 of image 0 is the middle one of the lower row
    assert torch.equal(windows[4], grid[0, 3:6, 3:6].reshape(9, 4))
    assert torch.equal(from_windows(windows, (6, 9), 3), grid)


def test_bias_index_tells_each_offset_apart():
    index = relative_position_index(2).tolist()
    # tokens (0,0) (0,1) (1,0) (1,1); rows of the table: dy * 3 + dx, both counted from -1
    assert index == [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]


def test_merging_takes_corners_column_by_column_and_pads_odd_sizes():
    merging = PatchMerging(2)
    merging.norm = nn.Identity()
    nn.init.eye_(merging.reduction.weight)
    y, x = torch.meshgrid(torch.arange(1.0, 4), torch.arange(1.0, 6), indexing="ij")
    merged = merging(torch.stack((y, x), dim=-1)[None])
    assert merged.shape == (1, 2, 3, 4)
    # The first 4 of 8 channels are the upper left and the lower left corner, as (y, x).
    assert merged[0, 0, 1].tolist() == [1, 3, 2, 3]
    assert merged[0, 1, 2].tolist() == [3, 5, 0, 0]


@pytest.mark.parametrize("size", [(65, 97), (1, 3), (64, 96)])
def test_any_size(size):
    model = build_swin(WINDOW_SIZE=4).eval()
    features = model(torch.randn(2, 3, *size))
    shapes = model.output_shape()
    assert list(features) == list(shapes) == ["res2", "res3", "res4", "res5"]
    for i, (name, feature) in enumerate(features.items()):
        stride, channels = 4 * 2**i, 16 * 2**i
        assert shapes[name] == ShapeSpec(channels=channels, stride=stride)
        assert feature.shape == (2, channels, *(math.ceil(n / stride) for n in size))
        assert feature.isfinite().all()
    assert model.size_divisibility == 32


def test_images_of_a_batch_do_not_see_each_other():
    model = build_swin().eval()
    images = torch.randn(3, 3, 40, 56)
    together = model(images)
    for i in range(3):
        for name, feature in model(images[i : i + 1]).items():
            torch.testing.assert_close(together[name][i], feature[0], rtol=1e-4, atol=1e-5)


def test_only_what_is_asked_for_is_made():
    """A parameter without a gradient would make other processes wait for ever."""
    model = build_swin(OUT_FEATURES=["res3", "res4"])
    assert [name for name, _ in model.named_children() if name.startswith("norm")] == [
        "norm1",
        "norm2",
    ]
    assert len(model.layers) == 3
    features = model.train()(torch.randn(4, 3, 40, 40))
    assert list(features) == ["res3", "res4"]
    sum(f.square().sum() for f in features.values()).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_stochastic_depth_grows_evenly():
    model = build_swin(DROP_PATH_RATE=0.7)
    rates = [m.rate for m in model.modules() if isinstance(m, DropPath)]
    assert rates == pytest.approx([0.1 * i for i in range(8)])


def test_stochastic_depth_drops_samples_and_keeps_the_mean():
    torch.manual_seed(0)
    layer = DropPath(0.25)
    x = torch.ones(4000, 2, 3)
    dropped = layer(x)
    assert torch.equal(dropped.amin((1, 2)), dropped.amax((1, 2)))
    values = dropped[:, 0, 0].unique()
    torch.testing.assert_close(values, torch.tensor([0.0, 4 / 3]))
    assert dropped.mean().item() == pytest.approx(1, abs=0.05)
    assert layer.eval()(x) is x


@pytest.mark.parametrize("key", ["DROP_RATE", "ATTN_DROP_RATE"])
def test_dropout_is_for_training(key):
    model = build_swin(DROP_PATH_RATE=0.0, **{key: 0.5})
    image = torch.randn(1, 3, 32, 32)

    def same_twice():
        torch.manual_seed(0)
        return torch.equal(model(image)["res5"], model(image)["res5"])

    assert not same_twice()
    model.eval()
    assert same_twice()


def test_absolute_positions_are_resized_to_the_grid():
    model = build_swin(APE=True, PRETRAIN_IMG_SIZE=32, PATCH_NORM=False).eval()
    assert model.absolute_pos_embed.shape == (1, 16, 8, 8)
    image = torch.randn(1, 3, 44, 60)
    before = model(image)["res2"]
    nn.init.constant_(model.absolute_pos_embed, 0.3)
    shifted = model(image)["res2"]
    assert not torch.allclose(before, shifted)
    nn.init.zeros_(model.absolute_pos_embed)
    with torch.no_grad():
        model.patch_embed.proj.bias += 0.3  # the same everywhere, as the constant above
    torch.testing.assert_close(model(image)["res2"], shifted, rtol=1e-4, atol=1e-5)


def test_half_precision():
    model = build_swin().train()
    image = torch.randn(2, 3, 50, 70)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = model(image)
    sum(f.float().square().mean() for f in features.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    with torch.no_grad():
        exact = model.eval()(image)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = model(image)
    for name in exact:
        assert (exact[name] - rough[name].float()).abs().max() < 0.1


def test_norms_and_position_tables_do_not_decay():
    cfg = swin_config(APE=True)
    cfg.SOLVER.WEIGHT_DECAY, cfg.SOLVER.WEIGHT_DECAY_NORM = 0.05, 0.0
    model = nn.ModuleDict({"backbone": build_backbone(cfg)})
    decays = {name: decay for name, _, _, decay in parameter_settings(cfg, model)}
    assert set(decays) == {name for name, _ in model.named_parameters()}
    for name, decay in decays.items():
        is_free = "norm" in name or name.endswith(
            ("relative_position_bias_table", "absolute_pos_embed")
        )
        assert decay == (0.0 if is_free else 0.05), name
    assert len(build_optimizer(cfg, model).param_groups) == 2


@pytest.mark.parametrize(
    "keys, sentence",
    [
        ({"NUM_HEADS": [1, 2, 4]}, r"NUM_HEADS=\[1, 2, 4\] has 3 stages, but .*DEPTHS has 4"),
        ({"NUM_HEADS": [3, 2, 4, 4]}, r"16 channels do not divide into 3 heads"),
        ({"OUT_FEATURES": ["res2", "res6"]}, r"OUT_FEATURES=.*res6.*; set it to some of res2"),
        ({"DROP_PATH_RATE": 1.0}, r"DROP_PATH_RATE=1.0; set it to 0 or more, below 1"),
        ({"OUT_FEATURES": []}, r"OUT_FEATURES=\[\]; set it to some of res2"),
    ],
)
def test_numbers_that_make_no_network(keys, sentence):
    with pytest.raises(ValueError, match=sentence):
        build_swin(**keys)


def test_a_stage_marks_the_seam_of_its_padded_grid():
    stage = SwinStage(
        8,
        [0.0, 0.0],
        4,
        downsample=None,
        num_heads=2,
        mlp_ratio=1.0,
        dropout=0.0,
        qkv_bias=True,
        qk_scale=None,
        attention_dropout=0.0,
    ).double()
    assert [block.shift for block in stage.blocks] == [0, 2]
    grid = torch.randn(1, 5, 6, 8, dtype=torch.double)
    expected = grid
    for block, shift in zip(stage.blocks, (0, 2)):
        normed = block.norm1(expected)[0]
        expected = expected + attend_token_by_token(block.attn, normed, 4, shift)
        expected = expected + block.mlp(block.norm2(expected))
    torch.testing.assert_close(stage(grid), expected)
