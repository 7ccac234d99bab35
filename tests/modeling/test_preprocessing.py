"""Images become one batch: the numbers, how it lies in memory, how it travels."""

import pytest
import torch
import torch.nn.functional as F
from detectron2.modeling import build_model
from tiny_model import example, tiny_config
from torch.utils._python_dispatch import TorchDispatchMode

from mask2former import device as devices


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model(tiny_config())


SIZES = {
    "one": [(64, 96)],
    "padded": [(40, 72)],
    "several alike": [(33, 40)] * 3,
    "several": [(40, 72), (64, 33), (64, 96)],
}


@pytest.mark.parametrize("kind", ["byte", "float"])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_images_are_normalised_and_padded_with_the_mean_colour(model, sizes, kind):
    batch = [example(i, height=h, width=w) for i, (h, w) in enumerate(sizes)]
    for sample in batch:
        sample["image"] = getattr(sample["image"], kind)()
    before = [sample["image"].clone() for sample in batch]
    images = model.preprocess(batch)
    height, width = (-(-max(sides) // 32) * 32 for sides in zip(*sizes))
    expected = torch.zeros(len(batch), 3, height, width)
    for out, image, (h, w) in zip(expected, before, sizes):
        out[:, :h, :w] = (image - model.pixel_mean) / model.pixel_std
    torch.testing.assert_close(images.tensor, expected, rtol=0, atol=0)
    assert [tuple(size) for size in images.image_sizes] == sizes
    assert all(torch.equal(s["image"], image) for s, image in zip(batch, before))


def in_rows_of_pixels(sample):
    """The same image, in memory (H,W,3)."""
    return {**sample, "image": sample["image"].permute(1, 2, 0).contiguous().permute(2, 0, 1)}


def test_the_axes_of_an_image_may_lie_in_any_order(model):
    batch = [example(0, height=40, width=72), example(1)]
    expected = model.preprocess(batch).tensor
    assert torch.equal(model.preprocess([in_rows_of_pixels(s) for s in batch]).tensor, expected)


@pytest.mark.parametrize("padded_size", [(64, 96), (50, 72), [70, 100]])
def test_frames_are_filled_with_the_colour_that_mappers_pad_with(model, padded_size):
    """As if the image had come padded; beyond its frame is the mean colour."""
    small, other = example(0, height=40, width=72), example(1, height=64, width=64)
    height, width = padded_size
    whole = F.pad(small["image"], (0, width - 72, 0, height - 40), value=128)
    expected = model.preprocess([{"image": whole}, other])
    images = model.preprocess([{**small, "padded_size": padded_size}, other])
    assert torch.equal(images.tensor, expected.tensor)
    assert images.image_sizes == [(height, width), (64, 64)]
    assert not images.tensor[0, :, height:].any() and not images.tensor[0, :, :, width:].any()


@pytest.mark.parametrize("num_images", [1, 2])
def test_the_device_says_how_a_batch_lies_in_memory(model, num_images, monkeypatch):
    batch = [example(i) for i in range(num_images)]
    assert model.preprocess(batch).tensor.is_contiguous(memory_format=torch.channels_last)
    monkeypatch.setattr(devices, "ACCELERATORS", [devices.Accelerator("cpu")])
    assert model.preprocess(batch).tensor.is_contiguous()


def test_layouts_of_devices(monkeypatch):
    half_only = devices.Accelerator("cpu", channels_last=devices.IN_HALF)
    assert devices.image_layout("cpu") == torch.channels_last
    assert devices.image_layout("cuda") == torch.contiguous_format
    assert devices.image_layout("xpu") == torch.contiguous_format  # nobody has measured
    monkeypatch.setattr(devices, "ACCELERATORS", [half_only])
    assert devices.image_layout("cpu") == torch.contiguous_format
    with torch.autocast("cpu", torch.bfloat16):
        assert devices.image_layout("cpu") == torch.channels_last


def test_images_travel_as_bytes_and_keep_their_strides(model):
    """Each in one piece, whatever the order of its axes in memory."""
    moved = []

    class Moves(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.aten._to_copy.default and "device" in (kwargs or {}):
                moved.append((args[0].dtype, tuple(args[0].shape), args[0].stride()))
            return func(*args, **(kwargs or {}))

    elsewhere = build_model(tiny_config()).to("meta")
    with Moves():
        elsewhere.preprocess([example(0), in_rows_of_pixels(example(1, height=40))])
    assert moved == [
        (torch.uint8, (3, 64, 96), (64 * 96, 96, 1)),
        (torch.uint8, (3, 40, 96), (1, 96 * 3, 3)),
    ]


def test_feature_maps_follow_the_batch(model):
    features = model.backbone(model.preprocess([example(0)]).tensor)
    assert all(f.is_contiguous(memory_format=torch.channels_last) for f in features.values())


def test_weights_and_their_gradients_stay_as_they_lie():
    """What is saved is as the official code has it, and fused optimizers ask it of both."""
    model = build_model(tiny_config()).train()
    sum(model([example(0)]).values()).backward()
    assert all(p.is_contiguous() and p.grad.is_contiguous() for p in model.parameters())
