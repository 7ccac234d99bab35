"""Pictures of noise with rectangles for targets, the same for every model."""

import argparse
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor


class Picture(NamedTuple):
    """An image and its T targets."""

    image: Tensor  # (3,H,W) uint8
    classes: Tensor  # (T,)
    masks: Tensor  # (T,H,W) bool


def random_picture(size: tuple[int, int], num_targets: int, num_classes: int, seed: int) -> Picture:
    """Noise, and `num_targets` rectangles of random classes."""
    generator = torch.Generator().manual_seed(seed)
    height, width = size
    masks = torch.zeros(num_targets, height, width, dtype=torch.bool)
    for mask in masks:
        top, left = (torch.rand(2, generator=generator) * torch.tensor(size) * 0.7).long().tolist()
        mask[top : top + height // 4, left : left + width // 4] = True
    classes = torch.randint(num_classes, (num_targets,), generator=generator)
    image = torch.randint(256, (3, height, width), generator=generator, dtype=torch.uint8)
    return Picture(image, classes, masks)


def read_pictures(args: argparse.Namespace, num_classes: int) -> list[Picture]:
    """As many as the command line asks for, of its size; of `args.picture`, if it names one."""
    pictures = [
        random_picture(args.size, args.num_targets, num_classes, seed)
        for seed in range(args.batch_size)
    ]
    if args.picture:
        with Image.open(args.picture) as file:
            pixels = np.array(
                file.convert("RGB").resize(args.size[::-1], Image.Resampling.BILINEAR)
            )
        image = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
        pictures = [picture._replace(image=image) for picture in pictures]
    return pictures
