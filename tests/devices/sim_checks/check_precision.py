"""Mixed precision on the simulated device: torch's policies, islands of float32, loss scaling."""

import pytest
import torch
import torch.nn.functional as F
import torch_sdaa  # noqa: F401
from torch import nn

HALVES = [torch.float16, torch.bfloat16]


def _tensors():
    generator = torch.Generator("sdaa").manual_seed(0)
    return tuple(
        torch.randn(size, device="sdaa", generator=generator)
        for size in ((4, 8), (8, 8), (2, 3, 8, 8), (4, 3, 3, 3))
    )


@pytest.mark.parametrize("half", HALVES)
def test_policies(half):
    x, w, image, kernel = _tensors()
    grid = torch.zeros(2, 3, 3, 2, device="sdaa")
    with torch.autocast("sdaa", dtype=half):
        y, z = x @ w, F.conv2d(image, kernel)
        query = x[None]
        lower = {
            "matmul": y,
            "conv2d": z,
            "linear": F.linear(x, w),
            "einsum": torch.einsum("ab,bc->ac", x, w),
            "attention": F.scaled_dot_product_attention(query, query, query),
            "relu": F.relu(y),
            "max_pool2d": F.max_pool2d(z, 2),
            "batch_norm": nn.BatchNorm2d(4, device="sdaa")(z),
            "grid_sample": F.grid_sample(z, grid.to(half), align_corners=False),
        }
        full = {
            "layer_norm": F.layer_norm(y, (8,)),
            "group_norm": F.group_norm(z, 2),
            "softmax": y.softmax(-1),
            "sum": y.sum(),
            "cumsum": y.cumsum(0),
            "exp": y.exp(),
            "norm": y.norm(),
            "interpolate": F.interpolate(z, size=(4, 4), mode="bilinear"),
            "cross_entropy": F.cross_entropy(y, torch.arange(4, device="sdaa")),
            "cdist": torch.cdist(y, y),
            "add_both": y + x,
            "cat_both": torch.cat([y, x]),
            "grid_sample_both": F.grid_sample(z, grid, align_corners=False),
        }
    assert {name: t.dtype for name, t in lower.items()} == dict.fromkeys(lower, half)
    assert {name: t.dtype for name, t in full.items()} == dict.fromkeys(full, torch.float32)


@pytest.mark.parametrize("half", HALVES)
def test_only_the_devices_own_autocast_ends_it(half):
    x, w, _, _ = _tensors()
    exact = (x.cpu() @ w.cpu()).to("sdaa")
    with torch.autocast("sdaa", dtype=half):
        for other in ("cuda", "cpu"):
            with torch.autocast(other, enabled=False):
                assert (x @ w).dtype == half
        with torch.autocast("sdaa", enabled=False):
            inside = x @ w
            assert inside.dtype == torch.float32
            torch.testing.assert_close(inside, exact)
        rounded = x @ w
        assert rounded.dtype == half and not torch.equal(rounded.float(), exact)
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32  # the CPU's is its own
    with pytest.raises(RuntimeError, match="unsafe to autocast"), torch.autocast("sdaa"):
        F.binary_cross_entropy(x.sigmoid(), x.sigmoid())


def test_old_spelling():
    x, w, _, _ = _tensors()
    with torch.sdaa.amp.autocast():
        assert (x @ w).dtype == torch.float16
        with torch.sdaa.amp.autocast(enabled=False):
            assert (x @ w).dtype == torch.float32
        with torch.sdaa.amp.autocast(dtype=torch.bfloat16):
            assert (x @ w).dtype == torch.bfloat16

    @torch.sdaa.amp.autocast()
    def multiply():
        return x @ w

    assert multiply().dtype == torch.float16
    assert (x @ w).dtype == torch.float32 and not torch.is_autocast_enabled("sdaa")


@pytest.mark.parametrize("half", HALVES)
def test_gradients_are_the_parameters_type(half):
    image = _tensors()[2]
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 8))
    model.to("sdaa")
    with torch.autocast("sdaa", dtype=half):
        model(image).sum().backward()
    assert {p.grad.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("half", HALVES)
def test_operators_that_the_cpu_lacks_in_half(half):
    x = _tensors()[0].to(half)
    results = [x.sort()[0], x.topk(2)[0], x.cumsum(0), x.norm(), x.std(), F.gelu(x), x.erf()]
    results += [torch.addcmul(x, x, x), x.clone().mul_(2), *torch._foreach_norm([x, x])]
    assert {r.dtype for r in results} == {half}
    torch.testing.assert_close(results[2].float(), x.float().cumsum(0), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("make", [lambda: torch.amp.GradScaler("sdaa"), torch.sdaa.amp.GradScaler])
def test_loss_scale(make):
    scaler = make()
    parameter = nn.Parameter(torch.ones(3, device="sdaa"))
    optimizer = torch.optim.SGD([parameter], 0.5)
    scaler.scale(parameter.sum()).backward()
    assert parameter.grad[0] == 65536
    scaler.unscale_(optimizer)
    assert parameter.grad.tolist() == [1, 1, 1]
    scaler.step(optimizer)
    scaler.update()
    assert parameter.tolist() == [0.5, 0.5, 0.5]
    optimizer.zero_grad()
    scaler.scale((parameter * float("inf")).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert parameter.tolist() == [0.5, 0.5, 0.5] and scaler.get_scale() == 32768
