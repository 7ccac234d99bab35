"""Weights, images and masks from names and numbers, so that goldens need no weight files.

The same numbers come out for whoever builds a model with the same parameter names and shapes.
"""

import math
import zlib

import torch
from torch import Tensor, nn


def seeded_parameter(name: str, shape: tuple[int, ...]) -> Tensor:
    """Noise that depends on the name and the shape alone, scaled to keep a network's signal."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    if name.endswith("running_var"):
        noise = 1 + noise.abs() / 10
    elif name.endswith("running_mean"):
        noise = noise / 10
    elif len(shape) > 1:
        noise = noise / math.sqrt(max(1, math.prod(shape[1:])))
    else:
        noise = noise / 10 + name.endswith("weight")
    return noise.float()


@torch.no_grad()
def seed_model(model: nn.Module) -> nn.Module:
    """Give every floating-point parameter and buffer its seeded value; the criterion keeps its."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not name.startswith("criterion."):
            tensor.copy_(seeded_parameter(name, tuple(tensor.shape)))
    return model


def seeded_image(height: int, width: int, seed: int) -> Tensor:
    """Ramps along y, x and both, with noise: uint8 (3,H,W)."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.linspace(0, 1, height)[:, None].expand(height, width)
    x = torch.linspace(0, 1, width).expand(height, width)
    ramps = torch.stack((y, x, (y + x) / 2))
    noise = torch.rand(ramps.shape, generator=generator)
    return ((0.6 * ramps + 0.4 * noise) * 255).to(torch.uint8)


def seeded_masks(
    height: int, width: int, num_masks: int, num_classes: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Discs that may overlap: classes (N,) int64, masks (N,H,W) bool."""
    generator = torch.Generator().manual_seed(1000 + seed)
    classes = torch.randint(0, num_classes, (num_masks,), generator=generator)
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    masks = torch.empty(num_masks, height, width, dtype=torch.bool)
    for mask in masks:
        y, x, size = torch.rand(3, generator=generator)
        radius = 8 + size * height / 3
        mask[:] = (rows - y * height) ** 2 + (columns - x * width) ** 2 < radius**2
    return classes, masks
