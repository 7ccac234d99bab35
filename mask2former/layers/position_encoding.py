"""Sine position encoding of a feature map.

B batch, C channels, H W the map's grid, S = H * W its pixels.
"""

import math

import torch
from torch import Tensor

from mask2former.layers.kept import kept


def sine_position_encoding(
    height: int,
    width: int,
    num_channels: int,
    device: torch.device | str | None = None,
    temperature: float = 10000.0,
) -> Tensor:
    """Where each pixel of a map is, as sines and cosines of growing wavelength (DETR, app. A.4).

    Coordinates run over (0, 2 pi] whatever the size of the map. The first half of the channels
    tells y, the second x; within a half, channels 2i and 2i + 1 are the sine and the cosine of one
    frequency.

    Returns:
        (C,H,W) float32.
    Raises:
        ValueError: num_channels is not a multiple of 4.
    """
    if num_channels % 4:
        raise ValueError(f"position encoding in {num_channels} channels; take a multiple of 4")
    num_frequencies = num_channels // 4
    exponents = torch.arange(num_frequencies, dtype=torch.float32, device=device) / num_frequencies
    wavelengths = temperature**exponents  # (C/4,)

    def encode(length: int) -> Tensor:  # -> (C/2, length)
        steps = torch.arange(1, length + 1, dtype=torch.float32, device=device)
        angles = steps / (length + 1e-6) * (2 * math.pi) / wavelengths[:, None]
        return torch.stack((angles.sin(), angles.cos()), dim=1).flatten(0, 1)

    y = encode(height)[:, :, None].expand(-1, -1, width)
    x = encode(width)[:, None, :].expand(-1, height, -1)
    return torch.cat((y, x))


@kept
def pixel_positions(height: int, width: int, num_channels: int, device: torch.device) -> Tensor:
    """The sine position encoding of each pixel, row by row: (S,C), shared by all who ask."""
    encoding = sine_position_encoding(height, width, num_channels, device)
    return encoding.flatten(1).T.contiguous()


def pixels_and_positions(feature: Tensor) -> tuple[Tensor, Tensor]:
    """A feature map as attention takes it, and where each pixel is: (B,C,H,W) -> (B,S,C), (S,C)

    With channels last, the pixels are a view.
    """
    position = pixel_positions(*feature.shape[-2:], feature.shape[1], feature.device)
    return feature.flatten(2).transpose(1, 2), position
