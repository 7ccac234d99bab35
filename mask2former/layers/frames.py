"""The frame of a picture: its content, and padding at the right and below.

Crops that must have one size have such a frame, whatever the picture; what the padding holds is
part of what the network sees.

h w the content, H W the frame
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

IMAGE_PADDING = 128  # official value: mid grey, about the mean of the normalisation


def pad_to(tensor: Tensor, size: Sequence[int], value: int = 0) -> Tensor:
    """(...,h,w) -> (...,H,W) of `size`; itself where it has that already."""
    height, width = tensor.shape[-2:]
    if (height, width) == tuple(size):
        return tensor
    return F.pad(tensor, (0, size[1] - width, 0, size[0] - height), value=value)
