"""Images of different sizes as one padded tensor."""

from __future__ import annotations

from typing import Any

import torch


class ImageList:
    """A batch (B,...,H,W) and the (height, width) of each image before it was padded.

    Indexing gives one image without its padding.
    """

    def __init__(self, tensor: torch.Tensor, image_sizes: list[tuple[int, int]]):
        self.tensor = tensor
        self.image_sizes = image_sizes

    def __len__(self) -> int:
        return len(self.image_sizes)

    def __getitem__(self, index: int) -> torch.Tensor:
        height, width = self.image_sizes[index]
        return self.tensor[index, ..., :height, :width]

    def to(self, *args: Any, **kwargs: Any) -> ImageList:
        return ImageList(self.tensor.to(*args, **kwargs), self.image_sizes)

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    @staticmethod
    def from_tensors(
        tensors: list[torch.Tensor],
        size_divisibility: int = 0,
        pad_value: float = 0.0,
        padding_constraints: dict[str, int] | None = None,
    ) -> ImageList:
        """Pad images at the right and the bottom to one size.

        Args:
            tensors: images (...,Hi,Wi) that agree in everything but height and width.
            size_divisibility: the common height and width become multiples of it, if above 1.
            padding_constraints: "square_size": pad to this height and width instead of to the
                largest image; "size_divisibility": goes before the argument of that name.

        Raises:
            AssertionError: no images, something that is no tensor, or different leading shapes.
            ValueError: an image is larger than "square_size".
        """
        assert isinstance(tensors, (list, tuple)) and len(tensors) > 0, "no images to batch"
        for image in tensors:
            assert isinstance(image, torch.Tensor), f"an image is a {type(image).__name__}"
            assert image.shape[:-2] == tensors[0].shape[:-2], (image.shape, tensors[0].shape)
        sizes = [(image.shape[-2], image.shape[-1]) for image in tensors]
        largest = max(height for height, _ in sizes), max(width for _, width in sizes)

        constraints = padding_constraints or {}
        square_size = constraints.get("square_size", 0)
        divisor = max(constraints.get("size_divisibility", size_divisibility), 1)
        wanted = (square_size, square_size) if square_size > 0 else largest
        height, width = (-(-side // divisor) * divisor for side in wanted)
        if largest[0] > height or largest[1] > width:
            raise ValueError(
                f"square_size={square_size}, but an image side is {max(largest)} pixels long; "
                "raise square_size or make the images smaller"
            )
        shape = (len(tensors), *tensors[0].shape[:-2], height, width)
        batch = tensors[0].new_full(shape, pad_value)
        for index, (image, (h, w)) in enumerate(zip(tensors, sizes)):
            batch[index, ..., :h, :w] = image
        return ImageList(batch, sizes)
