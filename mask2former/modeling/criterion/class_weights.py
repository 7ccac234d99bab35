"""How much each class counts in the class loss, from what a config says of some of them."""

import math
from collections.abc import Sequence

from mask2former.hints import nearest

KEY = "MODEL.MASK_FORMER.CLASS_WEIGHTS"


def class_weights(entries: Sequence[str], names: Sequence[str]) -> list[float]:
    """One weight a class: 1, if no entry names it.

    Args:
        entries: "NAME=WEIGHT"; a name may hold "=" itself.
        names: of the K classes, in their order. Several of one name get the same weight.
    Raises:
        ValueError: an entry is of another form, names no class or one twice, or its weight is not
            a number from 0 on.
    """
    given = {}
    for entry in entries:
        name, separator, text = entry.rpartition("=")
        if entry == "auto":
            raise ValueError(
                f"{KEY} is still 'auto', which only the training set can tell; give NAME=WEIGHT "
                "entries, or start the training by train_net.py"
            )
        if not separator:
            raise ValueError(f"{KEY}: {entry!r} is no NAME=WEIGHT; write e.g. 'road=2.0'")
        if name not in names:
            raise ValueError(f"{KEY}: unknown class {name!r}{_hint(name, names)}")
        if name in given:
            raise ValueError(f"{KEY}: {name!r} has two weights; keep one of them")
        given[name] = _weight(name, text)
    return [given.get(name, 1.0) for name in names]


def _weight(name: str, text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not 0 <= weight < math.inf:
        raise ValueError(f"{KEY}: the weight of {name!r} is {text!r}; give a number from 0 on")
    return weight


def _hint(name: str, names: Sequence[str]) -> str:
    return nearest(name, names) or f"; the classes are {', '.join(names[:5])}, ..."
