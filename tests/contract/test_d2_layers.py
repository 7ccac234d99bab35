"""detectron2.layers: on either provider the same numbers, state dicts and conversions."""

from collections import OrderedDict

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.layers import (
    CNNBlockBase,
    Conv2d,
    DepthwiseSeparableConv2d,
    FrozenBatchNorm2d,
    NaiveSyncBatchNorm,
    ShapeSpec,
    cat,
    cross_entropy,
    get_norm,
    nonzero_tuple,
)
from detectron2.layers.batch_norm import LayerNorm
from torch import nn
from torch.nn import functional as F


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("BN", nn.BatchNorm2d),
        ("SyncBN", nn.SyncBatchNorm),
        ("nnSyncBN", nn.SyncBatchNorm),
        ("naiveSyncBN", NaiveSyncBatchNorm),
        ("naiveSyncBN_N", NaiveSyncBatchNorm),
        ("FrozenBN", FrozenBatchNorm2d),
        ("GN", nn.GroupNorm),
        ("LN", LayerNorm),
    ],
)
def test_norm_names(name, kind):
    norm = get_norm(name, 64)
    assert type(norm) is kind
    assert norm.state_dict()["weight"].shape == (64,)


def test_norm_by_other_means():
    assert get_norm("", 8) is None
    assert get_norm(None, 8) is None
    assert get_norm(lambda channels: nn.GroupNorm(2, channels), 8).num_groups == 2
    assert get_norm("GN", 64).num_groups == 32
    with pytest.raises((KeyError, ValueError), match="batchnorm"):
        get_norm("batchnorm", 8)


def test_conv_applies_norm_then_activation():
    torch.manual_seed(0)
    conv = Conv2d(3, 4, 3, padding=1, norm=nn.BatchNorm2d(4), activation=F.relu)
    x = torch.randn(2, 3, 5, 6)
    plain = F.conv2d(x, conv.weight, conv.bias, padding=1)
    want = F.relu(F.batch_norm(plain, None, None, training=True))
    torch.testing.assert_close(conv(x), want)
    assert list(conv.state_dict())[:4] == ["weight", "bias", "norm.weight", "norm.bias"]


def test_conv_takes_an_empty_batch():
    assert Conv2d(3, 4, 3, norm=nn.BatchNorm2d(4))(torch.zeros(0, 3, 8, 9)).shape == (0, 4, 6, 7)
    with pytest.raises(AssertionError, match="SyncBatchNorm"):
        Conv2d(3, 4, 3, norm=nn.SyncBatchNorm(4))(torch.zeros(0, 3, 8, 9))


def test_depthwise_separable_convolution():
    torch.manual_seed(0)
    layer = DepthwiseSeparableConv2d(3, 5, norm1="BN", activation1=F.relu, activation2=torch.tanh)
    layer.eval()
    x = torch.randn(2, 3, 6, 6)
    depthwise = F.conv2d(x, layer.depthwise.weight, padding=1, groups=3)
    hidden = F.relu(depthwise / (1 + 1e-5) ** 0.5)
    want = torch.tanh(F.conv2d(hidden, layer.pointwise.weight, layer.pointwise.bias))
    torch.testing.assert_close(layer(x), want)
    assert layer.depthwise.bias is None


def test_depthwise_separable_convolution_starts_as_msra_has_it():
    torch.manual_seed(0)
    layer = DepthwiseSeparableConv2d(256, 512)
    # He et al. 2015 by what goes out: sqrt(2 / (channels * kernel area))
    for conv, fan_out in ((layer.depthwise, 256 * 9), (layer.pointwise, 512)):
        assert conv.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)
        assert not conv.bias.any()


def test_layer_norm_is_over_channels():
    torch.manual_seed(0)
    norm = LayerNorm(6)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(2, 6, 3, 4)
    want = F.layer_norm(x.permute(0, 2, 3, 1), (6,), norm.weight, norm.bias, 1e-6)
    torch.testing.assert_close(norm(x), want.permute(0, 3, 1, 2))


def test_small_functions():
    x = torch.arange(3.0)
    assert cat([x]) is x
    assert cat([x, x]).tolist() == [0, 1, 2, 0, 1, 2]
    rows, columns = nonzero_tuple(torch.tensor([[0, 3], [1, 0]]))
    assert (rows.tolist(), columns.tolist()) == ([0, 1], [1, 0])
    assert nonzero_tuple(torch.tensor(1))[0].tolist() == [0]
    logits = torch.zeros(0, 3, requires_grad=True)
    loss = cross_entropy(logits, torch.zeros(0, dtype=torch.int64))
    loss.backward()
    assert loss == 0 and logits.grad.shape == (0, 3)
    torch.testing.assert_close(
        cross_entropy(torch.eye(3), torch.tensor([0, 1, 1])),
        F.cross_entropy(torch.eye(3), torch.tensor([0, 1, 1])),
    )


def test_shape_spec():
    spec = ShapeSpec(3, stride=4)
    assert (spec.channels, spec.height, spec.width, spec.stride) == (3, None, None, 4)
    assert spec == ShapeSpec(channels=3, stride=4)


def trained_norm(channels: int = 4) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.normal_(norm.bias)
    norm(torch.randn(8, channels, 3, 3) * 2 + 1)
    return norm


def test_frozen_norm_equals_the_norm_in_evaluation():
    torch.manual_seed(0)
    norm = trained_norm()
    frozen = FrozenBatchNorm2d.convert_frozen_batchnorm(norm)
    assert list(frozen.parameters()) == []
    x = torch.randn(2, 4, 5, 5)
    want = norm.eval()(x)
    torch.testing.assert_close(frozen.train()(x), want)

    a, b = (x.clone().requires_grad_() for _ in range(2))
    torch.testing.assert_close(frozen(a), want)
    frozen(a).square().sum().backward()
    norm(b).square().sum().backward()
    torch.testing.assert_close(a.grad, b.grad)


def test_frozen_norm_keeps_half_precision():
    frozen = FrozenBatchNorm2d.convert_frozen_batchnorm(trained_norm())
    x = torch.randn(2, 4, 3, 3, dtype=torch.bfloat16, requires_grad=True)
    assert frozen(x).dtype == torch.bfloat16


def test_new_frozen_norm_is_the_identity():
    x = torch.randn(2, 4, 3, 3)
    torch.testing.assert_close(FrozenBatchNorm2d(4)(x), x)
    assert set(FrozenBatchNorm2d(4).state_dict()) == {
        "weight",
        "bias",
        "running_mean",
        "running_var",
    }


def test_conversion_reaches_every_norm_and_back():
    torch.manual_seed(0)
    model = nn.Sequential(
        trained_norm(),
        nn.Sequential(OrderedDict(norm=nn.SyncBatchNorm(4))),
        NaiveSyncBatchNorm(4),
        nn.BatchNorm2d(4, affine=False),
        nn.BatchNorm1d(4),
    ).eval()
    x = torch.randn(2, 4, 3, 3)
    want = model[:4](x)
    frozen = FrozenBatchNorm2d.convert_frozen_batchnorm(model)
    assert frozen is model
    assert [type(m).__name__ for m in (*model[:4], model[1].norm, model[4])] == [
        "FrozenBatchNorm2d",
        "Sequential",
        "FrozenBatchNorm2d",
        "FrozenBatchNorm2d",
        "FrozenBatchNorm2d",
        "BatchNorm1d",
    ]
    torch.testing.assert_close(model[:4](x), want)

    thawed = FrozenBatchNorm2d.convert_frozenbatchnorm2d_to_batchnorm2d(model).eval()
    assert type(thawed[0]) is nn.BatchNorm2d and thawed[0].weight.requires_grad
    torch.testing.assert_close(thawed[:4](x), want)


@pytest.mark.parametrize("version", [None, 1, 2, 3])
def test_frozen_norm_reads_old_state_dicts(version):
    state = OrderedDict(weight=torch.full((4,), 2.0), bias=torch.ones(4))
    if version is not None:
        state._metadata = {"": {"version": version}}
    frozen = FrozenBatchNorm2d(4)
    if version in (2, 3):  # from version 2 on the statistics are part of it
        with pytest.raises(RuntimeError, match="running_mean"):
            frozen.load_state_dict(state)
        return
    frozen.load_state_dict(state)
    assert frozen.running_mean.tolist() == [0.0] * 4
    assert frozen.running_var.tolist() == [1.0] * 4
    assert frozen.weight.tolist() == [2.0] * 4


def test_freezing_a_block():
    class Block(CNNBlockBase):
        def __init__(self):
            super().__init__(3, 4, 2)
            self.conv = Conv2d(3, 4, 3, stride=2, norm=nn.BatchNorm2d(4))

    block = Block()
    assert (block.in_channels, block.out_channels, block.stride) == (3, 4, 2)
    assert block.freeze() is block
    assert [name for name, p in block.named_parameters() if p.requires_grad] == []
    assert type(block.conv.norm) is FrozenBatchNorm2d


def test_naive_sync_norm_alone_is_a_batch_norm():
    torch.manual_seed(0)
    norm, want = NaiveSyncBatchNorm(4), nn.BatchNorm2d(4)
    x = torch.randn(2, 4, 3, 3)
    torch.testing.assert_close(norm(x), want(x))
    torch.testing.assert_close(norm.running_var, want.running_var)


# stats_mode, images of rank 0 out of 4
SPLITS = [("", 2), ("N", 2), ("N", 3), ("N", 4)]


def run_rank(rank: int, folder: str) -> None:
    """Forward and backward of both ranks' parts; what came out goes to a file of this rank."""
    dist.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=2)
    results = []
    for mode, split in SPLITS:
        images, weight = batch()
        part = slice(None, split) if rank == 0 else slice(split, None)
        x = images[part].requires_grad_()
        norm = affine(NaiveSyncBatchNorm(3, stats_mode=mode))
        y = norm(x)
        (y * weight[part]).sum().backward()
        results.append(
            {
                "y": y.detach(),
                "x_grad": x.grad,
                "weight_grad": norm.weight.grad,
                "running_mean": norm.running_mean,
                "running_var": norm.running_var,
            }
        )
    nobody = NaiveSyncBatchNorm(3, stats_mode="N")
    empty = nobody(torch.zeros(0, 3, 4, 4))
    results.append({"y": empty, "running_var": nobody.running_var})
    torch.save(results, f"{folder}/rank{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, 5, 6, generator=generator) * 3 + 10
    return images, torch.randn(4, 3, 5, 6, generator=generator)


def affine(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    norm.weight.data = torch.tensor([0.5, 1.0, 2.0])
    norm.bias.data = torch.tensor([-1.0, 0.0, 1.0])
    return norm


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("ranks"))
    mp.spawn(run_rank, (folder,), nprocs=2)
    return [torch.load(f"{folder}/rank{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("case", range(len(SPLITS)), ids=[f"{m or 'equal'}-{n}" for m, n in SPLITS])
def test_naive_sync_norm_equals_one_over_the_joined_batch(two_ranks, case):
    images, weight = batch()
    images.requires_grad_()
    norm = affine(nn.BatchNorm2d(3))
    y = norm(images)
    (y * weight).sum().backward()
    first, second = (ranks[case] for ranks in two_ranks)

    def joined(key):
        return torch.cat([first[key], second[key]])

    torch.testing.assert_close(joined("y"), y.detach(), atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(joined("x_grad"), images.grad, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(
        first["weight_grad"] + second["weight_grad"], norm.weight.grad, atol=1e-4, rtol=1e-4
    )
    torch.testing.assert_close(first["running_mean"], norm.running_mean)
    # the biased variance, which torch corrects by n / (n - 1)
    num_values = images[:, 0].numel()
    biased = 0.9 + (norm.running_var - 0.9) * (num_values - 1) / num_values
    torch.testing.assert_close(first["running_var"], biased, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(first["running_var"], second["running_var"])


def test_naive_sync_norm_without_any_input_learns_nothing(two_ranks):
    for ranks in two_ranks:
        assert ranks[-1]["y"].shape == (0, 3, 4, 4)
        assert ranks[-1]["running_var"].tolist() == [1.0] * 3
