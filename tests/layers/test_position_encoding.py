import math

import numpy as np
import pytest

from mask2former.layers.position_encoding import sine_position_encoding


def encode_with_loops(height, width, num_channels, temperature=10000.0):
    half = num_channels // 2
    result = np.zeros((num_channels, height, width))
    for row in range(height):
        for column in range(width):
            for start, position in (
                (0, (row + 1) / (height + 1e-6)),
                (half, (column + 1) / (width + 1e-6)),
            ):
                for channel in range(half):
                    wavelength = temperature ** (2 * (channel // 2) / half)
                    wave = math.sin if channel % 2 == 0 else math.cos
                    angle = 2 * math.pi * position / wavelength
                    result[start + channel, row, column] = wave(angle)
    return result


@pytest.mark.parametrize(("height", "width", "num_channels"), [(3, 5, 8), (1, 1, 4), (4, 2, 12)])
def test_agrees_with_loops(height, width, num_channels):
    result = sine_position_encoding(height, width, num_channels).numpy()
    np.testing.assert_allclose(
        result, encode_with_loops(height, width, num_channels), rtol=0, atol=1e-6
    )


def test_channels_must_divide_by_four():
    with pytest.raises(ValueError, match="multiple of 4"):
        sine_position_encoding(2, 2, 6)
