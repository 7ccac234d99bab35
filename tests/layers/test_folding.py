"""A norm of fixed statistics, folded into the convolution before it, changes no number."""

import copy

import pytest
import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d, NaiveSyncBatchNorm, get_norm
from detectron2.modeling import build_model
from tiny_model import example, tiny_config
from torch import nn
from torch.nn import functional as F

from mask2former.layers.folding import FoldingConv2d, fold_norms, has_fixed_statistics
from mask2former.layers.sync_batch_norm import convert_sync_batch_norm

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
FIXED = ("FrozenBN", "BN", "SyncBN", "naiveSyncBN", "without affine")


def random_norm(name, channels):
    norm = nn.BatchNorm2d(channels, affine=False) if name == "without affine" else None
    norm = norm or get_norm(name, channels)
    with torch.no_grad():
        for key, value in norm.state_dict().items():
            if value.is_floating_point():
                value.copy_(torch.rand_like(value) + (0.5 if key == "running_var" else 0))
    return norm.eval()


def pair(name, bias=False, **options):
    """A convolution with a norm, and the same one that folds it."""
    torch.manual_seed(0)
    options = {"padding": 1, "activation": F.relu, **options}
    plain = Conv2d(4, 6, 3, bias=bias, norm=random_norm(name, 6), **options)
    model = nn.ModuleList([copy.deepcopy(plain)])
    fold_norms(model)
    assert type(model[0]) is FoldingConv2d
    return plain, model[0]


def image():
    return torch.randn(2, 4, 7, 9, generator=torch.Generator().manual_seed(1), requires_grad=True)


class CountsNorms:
    """How often the norm itself runs."""

    def __init__(self, convolution):
        self.number = 0
        convolution.norm.register_forward_hook(self)

    def __call__(self, *_):
        self.number += 1


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", FIXED)
def test_the_same_numbers_without_the_norm(name, bias):
    plain, folding = pair(name, bias, stride=2)
    calls = CountsNorms(folding)
    with torch.no_grad():
        torch.testing.assert_close(folding(image()), plain(image()), **CLOSE)
    assert calls.number == 0


@pytest.mark.parametrize("learning", ["all", "convolution", "image"])
@pytest.mark.parametrize("name", FIXED)
def test_the_same_gradients(name, learning):
    results, kept = [], []
    for layer in pair(name, bias=True):
        layer.requires_grad_(learning != "image")
        layer.norm.requires_grad_(learning == "all")
        x = image()
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: kept.append(t.numel()) or t, lambda t: t
        ):
            y = layer(x)
        y.square().sum().backward()
        results.append([y, x.grad, *(p.grad for p in layer.parameters() if p.requires_grad)])
        kept.append(None)
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
    plain, folding = kept[: kept.index(None)], kept[kept.index(None) + 1 : -1]
    assert sum(folding) - sum(plain) < layer.weight.numel()  # the image, but no other weights


def test_statistics_of_the_batch_are_the_norms_own_business():
    plain, folding = pair("BN")
    calls = CountsNorms(folding)
    for layer in (plain, folding):
        layer.train()
    assert torch.equal(folding(image()), plain(image()))
    assert torch.equal(folding.norm.running_mean, plain.norm.running_mean)
    assert calls.number == 1
    # What has been learnt since is in the next result.
    with torch.no_grad():
        torch.testing.assert_close(folding.eval()(image()), plain.eval()(image()), **CLOSE)
    assert calls.number == 1


def test_other_norms_are_left_alone():
    unknown = nn.BatchNorm2d(4, track_running_stats=False).eval()  # of each batch, even so
    norms = [nn.GroupNorm(2, 4), nn.BatchNorm2d(4).train(), unknown, None]
    assert [has_fixed_statistics(norm) for norm in norms] == [False] * 4
    assert has_fixed_statistics(FrozenBatchNorm2d(4).train())
    model = nn.ModuleList([Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)])
    fold_norms(model)
    assert [type(m) for m in model] == [Conv2d, nn.Conv2d]


def test_grouped_convolutions():
    plain, folding = pair("BN", groups=2)
    with torch.no_grad():
        torch.testing.assert_close(folding(image()), plain(image()), **CLOSE)


def test_norms_that_are_converted_later():
    _, folding = pair("SyncBN")
    convert_sync_batch_norm(folding)
    assert isinstance(folding.norm, NaiveSyncBatchNorm)
    calls = CountsNorms(folding)
    plain, _ = pair("SyncBN")
    with torch.no_grad():
        torch.testing.assert_close(folding(image()), plain(image()), **CLOSE)
    assert calls.number == 0


def test_a_model_keeps_its_names_and_its_numbers():
    torch.manual_seed(0)
    model = build_model(tiny_config("MODEL.RESNETS.NORM", "BN")).eval()
    plain = copy.deepcopy(model)
    num_folding = 0
    for module in plain.modules():
        if type(module) is FoldingConv2d:
            num_folding += 1
            module.__class__ = Conv2d
    assert num_folding >= 20  # the convolutions of ResNet-18
    assert list(model.state_dict()) == list(plain.state_dict())
    with torch.no_grad():
        found, expected = (m.predict([example(0)])[0] for m in (model, plain))
    torch.testing.assert_close(found.mask_logits, expected.mask_logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.class_logits, expected.class_logits, rtol=1e-4, atol=1e-4)
