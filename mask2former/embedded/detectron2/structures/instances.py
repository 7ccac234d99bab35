"""What is known of the N objects of one image: named fields of one length."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable
from typing import Any, NoReturn

import torch


class Instances:
    """Fields such as `gt_classes` or `pred_masks`, each with one entry an object.

    A field is anything with a length and an index: tensor, Boxes, BitMasks, list. Set a field by
    attribute or by `set`; index the container to get the same objects of all fields.

    Args:
        image_size: (height, width) of the image in pixels.
        **kwargs: first fields.
    """

    def __init__(self, image_size: tuple[int, int], **kwargs: Any):
        super().__setattr__("_image_size", image_size)
        super().__setattr__("_fields", {})
        for name, value in kwargs.items():
            self.set(name, value)

    @property
    def image_size(self) -> tuple[int, int]:
        return self._image_size

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            self.set(name, value)

    def __getattr__(self, name: str) -> Any:
        # Copying and unpickling ask before there are fields.
        if name == "_fields" or name not in self._fields:
            raise AttributeError(f"Instances has no field {name!r}")
        return self._fields[name]

    def set(self, name: str, value: Any) -> None:
        """
        Raises:
            AssertionError: `value` has another length than the fields that are there.
        """
        if self._fields:
            assert len(value) == len(self), (
                f"field {name!r} has length {len(value)}, but these Instances have {len(self)}"
            )
        self._fields[name] = value

    def has(self, name: str) -> bool:
        return name in self._fields

    def remove(self, name: str) -> None:
        del self._fields[name]

    def get(self, name: str) -> Any:
        return self._fields[name]

    def get_fields(self) -> dict[str, Any]:
        """The fields by name; changes to the dict change the Instances."""
        return self._fields

    def to(self, *args: Any, **kwargs: Any) -> Instances:
        """A copy whose fields went through their own `to`, where they have one."""
        return self._map(lambda value: value.to(*args, **kwargs) if hasattr(value, "to") else value)

    def __getitem__(self, item: int | slice | torch.Tensor) -> Instances:
        """The objects that an index, a slice, or a tensor of indices or bools picks."""
        if not isinstance(item, slice) and _is_integer(item):
            index = operator.index(item)
            if not -len(self) <= index < len(self):
                raise IndexError(f"index {index} is outside {len(self)} instances")
            item = slice(index, index + 1 or None)
        return self._map(lambda value: value[item])

    def _map(self, function: Callable[[Any], Any]) -> Instances:
        result = Instances(self._image_size)
        for name, value in self._fields.items():
            result.set(name, function(value))
        return result

    def __len__(self) -> int:
        for value in self._fields.values():
            return len(value)
        raise NotImplementedError("Instances without fields have no length")

    def __iter__(self) -> NoReturn:
        raise NotImplementedError("Instances cannot be iterated over; loop over range(len(...))")

    @staticmethod
    def cat(instance_lists: list[Instances]) -> Instances:
        """Join the objects of several Instances of one image size; the first one names the fields.

        Raises:
            AssertionError: the list is empty, its entries are no Instances, or the sizes differ.
            ValueError: a field's type does not say how it is joined.
        """
        assert len(instance_lists) > 0, "Instances.cat got an empty list"
        assert all(isinstance(instances, Instances) for instances in instance_lists)
        first = instance_lists[0]
        sizes = {tuple(instances.image_size) for instances in instance_lists}
        assert len(sizes) == 1, f"Instances.cat got images of different sizes: {sorted(sizes)}"
        if len(instance_lists) == 1:
            return first
        result = Instances(first.image_size)
        for name in first._fields:
            result.set(name, _cat_field(name, [one.get(name) for one in instance_lists]))
        return result

    def __repr__(self) -> str:
        count = len(self) if self._fields else 0
        height, width = self._image_size
        fields = ", ".join(f"{name}: {value}" for name, value in self._fields.items())
        return (
            f"Instances(num_instances={count}, image_height={height}, image_width={width}, "
            f"fields=[{fields}])"
        )

    __str__ = __repr__


def _is_integer(item: Any) -> bool:
    if isinstance(item, torch.Tensor):
        return item.dim() == 0 and item.dtype != torch.bool and not item.is_floating_point()
    return hasattr(item, "__index__") and getattr(item, "ndim", 0) == 0


def _cat_field(name: str, values: list[Any]) -> Any:
    kind = type(values[0])
    if isinstance(values[0], torch.Tensor):
        return torch.cat(values)
    if isinstance(values[0], list):
        return list(itertools.chain(*values))
    if hasattr(kind, "cat"):
        return kind.cat(values)
    raise ValueError(f"field {name!r} of type {kind.__name__} cannot be concatenated")
