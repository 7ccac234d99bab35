"""An augmentation looks at an input, draws random numbers and returns a deterministic transform.

The transform can then be applied to everything else that belongs to the image, and inverted.
"""

import inspect
import pprint
from collections.abc import Sequence
from typing import Any, Union

import numpy as np
from fvcore.transforms.transform import Transform, TransformList

__all__ = [
    "AugInput",
    "Augmentation",
    "AugmentationList",
    "TransformGen",
    "apply_augmentations",
    "apply_transform_gens",
]

AugmentationOrTransform = Union["Augmentation", Transform]


class Augmentation:
    """Base class: a subclass writes `get_transform`.

    The names of `get_transform`'s parameters say which attributes of the input it wants:
    `def get_transform(self, image, sem_seg)`. A single parameter of any name receives the image.
    A subclass can name them in `input_args` instead.
    """

    input_args: tuple[str, ...] | None = None

    def _init(self, params: dict[str, Any] | None = None) -> None:
        """Keep constructor arguments (`self._init(locals())`) as attributes."""
        for name, value in (params or {}).items():
            if name != "self" and not name.startswith("_"):
                setattr(self, name, value)

    def get_transform(self, *args) -> Transform:
        """The transform for this input; it must not modify the input."""
        raise NotImplementedError(f"{type(self).__name__} has no get_transform")

    def __call__(self, aug_input: "AugInput") -> Transform:
        """Draw a transform for `aug_input`, apply it there, and return it.

        Raises:
            AttributeError: the input lacks something that `get_transform` asks for.
            TypeError: `get_transform` has variable arguments, or returned no Transform.
        """
        transform = self.get_transform(*self._arguments_from(aug_input))
        if not isinstance(transform, Transform):
            raise TypeError(
                f"{type(self).__name__}.get_transform returned a {type(transform).__name__}; "
                "return a Transform, NoOpTransform() if there is nothing to do"
            )
        aug_input.transform(transform)
        return transform

    def _arguments_from(self, aug_input: "AugInput") -> list:
        names = self.input_args or _parameter_names(self)
        missing = [name for name in names if not hasattr(aug_input, name)]
        if missing:
            raise AttributeError(
                f"{type(self).__name__}.get_transform needs {', '.join(missing)}, "
                f"which the {type(aug_input).__name__} does not have; set it on the input"
            )
        return [getattr(aug_input, name) for name in names]

    def _rand_range(
        self,
        low: float = 1.0,
        high: float | None = None,
        size: int | Sequence[int] | None = None,
    ) -> np.ndarray:
        """A uniform number in [low, high), or in [0, low) if `high` is not given."""
        if high is None:
            low, high = 0, low
        return np.random.uniform(low, high, [] if size is None else size)

    def __repr__(self) -> str:
        """Constructor call with the arguments that differ from their defaults."""
        arguments = []
        for name, parameter in inspect.signature(type(self)).parameters.items():
            if not hasattr(self, name):
                return object.__repr__(self)
            value = getattr(self, name)
            if parameter.default is value:
                continue
            text = pprint.pformat(value)
            arguments.append(f"{name}={text if len(text.splitlines()) == 1 else '...'}")
        return f"{type(self).__name__}({', '.join(arguments)})"

    __str__ = __repr__


def _parameter_names(augmentation: Augmentation) -> tuple[str, ...]:
    parameters = list(inspect.signature(augmentation.get_transform).parameters.values())
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    fixed = [p for p in parameters if p.kind not in variable]
    if len(parameters) == 1:
        return ("image",)
    if len(fixed) != len(parameters):
        raise TypeError(
            f"{type(augmentation).__name__}.get_transform has variable arguments; "
            "name them, or set `input_args`, or write `__call__`"
        )
    return tuple(p.name for p in fixed)


class _TransformAsAugmentation(Augmentation):
    """A fixed transform in the place of an augmentation."""

    def __init__(self, tfm: Transform) -> None:
        self.tfm = tfm

    def get_transform(self, *args) -> Transform:
        return self.tfm

    def __repr__(self) -> str:
        return repr(self.tfm)

    __str__ = __repr__


def as_augmentation(item: AugmentationOrTransform) -> Augmentation:
    """Wrap a Transform so that it can stand where an augmentation is expected."""
    if isinstance(item, Augmentation):
        return item
    if isinstance(item, TransformList):
        return AugmentationList(item.transforms)
    if isinstance(item, Transform):
        return _TransformAsAugmentation(item)
    raise TypeError(f"expected an Augmentation or a Transform, got {type(item).__name__}")


class AugmentationList(Augmentation):
    """Apply augmentations one after the other; each sees what the previous one left."""

    def __init__(self, augs: Sequence[AugmentationOrTransform]) -> None:
        super().__init__()
        self.augs = [as_augmentation(item) for item in augs]

    def __call__(self, aug_input: "AugInput") -> TransformList:
        return TransformList([aug(aug_input) for aug in self.augs])

    def __repr__(self) -> str:
        return f"AugmentationList[{', '.join(repr(aug) for aug in self.augs)}]"

    __str__ = __repr__


class AugInput:
    """What augmentations look at and transform in place. A subclass may carry more.

    Args:
        image: (H, W) or (H, W, C), uint8 in [0, 255] or floating in [0, 1] or [0, 255];
            other types pass where no augmentation computes with them.
        boxes: (N, 4) absolute XYXY, or None.
        sem_seg: (H, W) of class ids, or None.
    """

    def __init__(
        self,
        image: np.ndarray,
        *,
        boxes: np.ndarray | None = None,
        sem_seg: np.ndarray | None = None,
    ) -> None:
        _check_image(image)
        self.image = image
        self.boxes = boxes
        self.sem_seg = sem_seg

    def transform(self, tfm: Transform) -> None:
        """Apply a transform to everything here, in place."""
        for name, apply in (
            ("image", tfm.apply_image),
            ("boxes", tfm.apply_box),
            ("sem_seg", tfm.apply_segmentation),
        ):
            value = getattr(self, name)
            if value is not None:
                setattr(self, name, apply(value))

    def apply_augmentations(
        self, augmentations: Sequence[AugmentationOrTransform]
    ) -> TransformList:
        """Augment in place; returns the transforms that were chosen."""
        return AugmentationList(augmentations)(self)


def _check_image(image: Any) -> None:
    if not isinstance(image, np.ndarray):
        raise TypeError(f"the image is a {type(image).__name__}; give a numpy array")
    if image.ndim not in (2, 3):
        raise ValueError(f"the image has shape {image.shape}; give (H, W) or (H, W, C)")


def apply_augmentations(
    augmentations: Sequence[AugmentationOrTransform], inputs: AugInput | np.ndarray
) -> tuple[AugInput | np.ndarray, TransformList]:
    """Augment an AugInput in place, or an image given as an array.

    Returns:
        the augmented input, of the kind that was given, and the transforms.
    """
    if isinstance(inputs, np.ndarray):
        aug_input = AugInput(inputs)
        transforms = aug_input.apply_augmentations(augmentations)
        return aug_input.image, transforms
    return inputs, inputs.apply_augmentations(augmentations)


# the names of detectron2 0.1, still in use in its projects
TransformGen = Augmentation
apply_transform_gens = apply_augmentations
