"""Operators and their gradients on the simulated device equal the CPU's, and stay on the device."""

import copy

import pytest
import torch
import torch.nn.functional as F
import torch_sdaa  # noqa: F401
from torch import nn


def _r(*size):
    return torch.randn(*size, generator=torch.Generator().manual_seed(sum(size)))


def _i(*values):
    return torch.tensor(values)


def _assigned(x, v, i):
    x = x.clone()
    x[i] = v
    x[x > 1] = 0
    x[:, 1] += 1
    return x


def _made(x):
    like = {"device": x.device}
    grid = torch.meshgrid(torch.arange(3.0, **like), torch.linspace(0, 1, 4, **like), indexing="ij")
    made = (
        torch.eye(3, **like),
        torch.full((2,), 1.5, **like),
        x.new_zeros(3),
        x.new_tensor([1.0]),
    )
    return *grid, *made, torch.ones_like(x), torch.tensor([1, 2.0], **like)


def _pointwise(x, y):
    compared = x > y, x.eq(y), (x > 0) & (y > 0), torch.isfinite(x)
    computed = x.clamp(-1, 1), x.exp(), x.sigmoid(), x.abs() ** 0.5, torch.maximum(x, y), x.round()
    return *compared, *computed, torch.where(x > 0, x, y), F.gelu(x), F.relu_(x * 1), x.lerp(y, 0.3)


def _reduced(x):
    both = *x.max(1), *x.min(0), x.amax(0), x.std(), x.var(1), x.norm(), x.logsumexp(1), x.prod(0)
    return *both, x.sum(), x.sum(0), x.mean((0, 1)), (x > 0).any(), (x > 0).all(1), x.argmax()


def _masked_attention(q, k, v):
    mask = torch.ones(6, 5, dtype=torch.bool, device=q.device).tril()
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def _losses(x, y):
    target = torch.arange(4, device=x.device)
    weighted = F.cross_entropy(x, target, torch.linspace(1, 2, 9, device=x.device))
    bce = F.binary_cross_entropy_with_logits(x, y.sigmoid().detach())
    return weighted, bce, F.smooth_l1_loss(x, y), F.mse_loss(x, y), F.l1_loss(x, y)


CASES = {
    "conv2d": (lambda x, w, b: F.conv2d(x, w, b, 2, 1), _r(2, 3, 8, 8), _r(4, 3, 3, 3), _r(4)),
    "channels_last": (
        lambda x, w: F.conv2d(x.contiguous(memory_format=torch.channels_last), w),
        _r(2, 3, 8, 8),
        _r(4, 3, 3, 3),
    ),
    "conv_transpose": (
        lambda x, w: F.conv_transpose2d(x, w, stride=2),
        _r(2, 3, 8, 8),
        _r(3, 4, 2, 2),
    ),
    "batch_norm": (
        lambda x, w, b: F.batch_norm(x, None, None, w, b, True),
        _r(4, 3, 8, 8),
        _r(3),
        _r(3),
    ),
    "group_norm": (lambda x, w, b: F.group_norm(x, 2, w, b), _r(4, 4, 8, 8), _r(4), _r(4)),
    "layer_norm": (lambda x, w, b: F.layer_norm(x, (8,), w, b), _r(4, 4, 8), _r(8), _r(8)),
    "linear": (F.linear, _r(4, 5, 8), _r(7, 8), _r(7)),
    "einsum": (lambda x, y: torch.einsum("bqc,bchw->bqhw", x, y), _r(2, 4, 3), _r(2, 3, 5, 6)),
    "baddbmm": (torch.baddbmm, _r(2, 4, 5), _r(2, 4, 3), _r(2, 3, 5)),
    "attention": (_masked_attention, _r(2, 2, 6, 8), _r(2, 2, 5, 8), _r(2, 2, 5, 8)),
    "bilinear": (
        lambda x: F.interpolate(x, (13, 5), mode="bilinear", align_corners=False),
        _r(2, 3, 8, 8),
    ),
    "nearest": (lambda x: F.interpolate(x, (13, 5), mode="nearest"), _r(2, 3, 8, 8)),
    "bicubic": (lambda x: F.interpolate(x, (13, 5), mode="bicubic"), _r(2, 3, 8, 8)),
    "grid_sample": (
        lambda x, g: F.grid_sample(x, g, align_corners=False),
        _r(2, 3, 8, 8),
        _r(2, 4, 5, 2).clamp(-1, 1) * 0.9,
    ),
    "pool": (lambda x: (F.max_pool2d(x, 3, 2, 1), F.adaptive_avg_pool2d(x, 1)), _r(2, 3, 8, 8)),
    "pad": (lambda x: (F.pad(x, (1, 2, 3, 1)), x.roll((1, 2), (2, 3))), _r(2, 3, 8, 8)),
    "topk": (lambda x: (*x.topk(3, dim=1), *x.sort(dim=1)), _r(4, 9)),
    "cumsum": (lambda x: (x.cumsum(0), x.flip(0), x.tril(), x.repeat(2, 1)), _r(4, 9)),
    "softmax": (lambda x: (x.softmax(-1), x.log_softmax(0)), _r(4, 9)),
    "nonzero": (lambda x: ((x > 0).nonzero(), *torch.where(x > 0), x[x > 0]), _r(4, 9)),
    "index": (lambda x, i: (x[i], x[:, i, None], x.index_select(1, i)), _r(4, 9), _i(2, 1)),
    "index_on_cpu": (lambda x: x[torch.tensor([2, 1])], _r(4, 9)),
    "index_put": (_assigned, _r(4, 9), _r(2, 9), _i(2, 1)),
    "index_add": (lambda x, v, i: x.index_add(0, i, v), _r(4, 9), _r(2, 9), _i(2, 1)),
    "accumulate": (
        lambda x, v, i: x.index_put((i,), v, accumulate=True),
        _r(4, 9),
        _r(3, 9),
        _i(2, 1, 1),
    ),
    "embedding": (lambda w, i: F.embedding(i, w), _r(4, 9), _i(2, 1)),
    "scatter": (
        lambda x, i, v: (x.scatter(1, i, v), x.scatter_add(1, i, v), x.gather(1, i)),
        _r(4, 9),
        _i([2], [1]),
        _r(2, 1),
    ),
    "joined": (lambda x, y: (torch.cat([x, y]), torch.stack([x, y]), *x.split(2)), _r(4), _r(4)),
    "views": (
        lambda x: (
            x.permute(1, 0, 2).flatten(1),
            x.transpose(1, 2),
            x.unfold(1, 2, 1),
            x[None, 1:],
        ),
        _r(4, 5, 2),
    ),
    "complex": (lambda x: (torch.fft.rfft(x).abs(), torch.view_as_complex(x).real), _r(8, 2)),
    "counted": (lambda i: (i.unique(), torch.bincount(i), F.one_hot(i, 5)), _i(3, 1, 1, 2)),
    "linalg": (
        lambda x: (torch.linalg.inv(x @ x.T + torch.eye(4).to(x)), torch.cdist(x, x)),
        _r(4, 4),
    ),
    "made": (_made, _r(3)),
    "pointwise": (_pointwise, _r(4, 9), _r(9)),
    "reduced": (_reduced, _r(4, 9)),
    "losses": (_losses, _r(4, 9), _r(4, 9) + 1),
}


def _run(function, arguments, device):
    leaves = [
        a.detach().clone().to(device).requires_grad_(a.is_floating_point()) for a in arguments
    ]
    results = function(*leaves)
    results = results if isinstance(results, tuple) else (results,)
    total = sum((r.float() ** 2).sum() for r in results if r.requires_grad)
    if isinstance(total, torch.Tensor):
        total.backward()
    return results, [leaf.grad for leaf in leaves if leaf.is_floating_point()]


@pytest.mark.parametrize("name", CASES)
def test_equals_cpu(name):
    function, *arguments = CASES[name]
    expected, expected_gradients = _run(function, arguments, "cpu")
    results, gradients = _run(function, arguments, "sdaa")
    assert len(results) == len(expected)
    for ours, theirs in zip((*results, *gradients), (*expected, *expected_gradients)):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert ours.device == torch.device("sdaa", 0)
            torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("is_training", [True, False])
def test_multihead_attention(is_training):
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(8, 2, batch_first=True).train(is_training)
    x = _r(2, 5, 8)
    with torch.set_grad_enabled(is_training):
        expected = attention(x, x, x, need_weights=False)[0]
        there = copy.deepcopy(attention).to("sdaa")
        y = x.to("sdaa")
        torch.testing.assert_close(there(y, y, y, need_weights=False)[0].cpu(), expected)


def test_in_place_and_out():
    x = torch.arange(4.0, device="sdaa")
    view = x[1:]
    view.add_(1).mul_(2)
    assert x.tolist() == [0, 4, 6, 8]
    out = torch.empty(0, device="sdaa")
    torch.add(x, 1, out=out)  # grows it
    assert out.tolist() == [1, 5, 7, 9]
    out.resize_(6).zero_()
    assert out.tolist() == [0] * 6
    x.set_(out)
    x[0] = 1
    assert out[0] == 1
    x.data = torch.ones(2, device="sdaa")
    assert x.tolist() == [1, 1] and x.view(1, 2).data_ptr() == x.data_ptr()


@pytest.mark.parametrize("foreach", [True, False])
@pytest.mark.parametrize("kind", ["AdamW", "SGD"])
def test_training_equals_cpu(kind, foreach):
    torch.manual_seed(0)
    here = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5)
    )
    there = copy.deepcopy(here).to("sdaa")
    options = {"momentum": 0.9} if kind == "SGD" else {}
    optimizers = [
        getattr(torch.optim, kind)(
            m.parameters(), 0.01, weight_decay=0.1, foreach=foreach, **options
        )
        for m in (here, there)
    ]
    for step in range(4):
        x = _r(2, 3, 8, 8) + step
        for model, optimizer in zip((here, there), optimizers):
            device = next(model.parameters()).device
            optimizer.zero_grad()
            F.cross_entropy(model(x.to(device)), torch.arange(2, device=device)).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
    for name, value in there.state_dict().items():
        torch.testing.assert_close(value.cpu(), here.state_dict()[name], rtol=1e-4, atol=1e-5)
    optimizers[0].load_state_dict(optimizers[1].state_dict())
    optimizers[1].load_state_dict(optimizers[0].state_dict())
