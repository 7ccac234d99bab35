"""Weights that fit a model in part: what can be taken of them all the same, and how it is said."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor

from mask2former.engine.weight_files import endings

CLASSES = ("class_embed.weight", "class_embed.bias")  # (K+1,...): K classes and "no object"
QUERIES = ("query_feat.weight", "query_embed.weight")  # (Q,C)
BIAS_TABLE = "relative_position_bias_table"  # ((2M-1)**2, heads): Swin's, of windows of M x M
BIAS_INDEX = "relative_position_index"  # computed from M
POSITIONS = "absolute_pos_embed"  # (1,C,H,W)


def fit_weights(
    wanted: Mapping[str, Tensor], weights: Mapping[str, Tensor], by_endings: bool
) -> tuple[dict[str, Tensor], list[str]]:
    """`weights` with queries and position tables brought to the sizes that the model has.

    Queries are taken one by one, as many as there are on either side. Tables of Swin are
    interpolated, as its authors do. Classes are left: the same number means another one elsewhere.

    Args:
        wanted: the model's state_dict.
        by_endings: the names in `weights` are ends of those in `wanted` (matching_heuristics).
    Returns:
        the weights, and sentences that say what was done.
    """
    fitted = dict(weights)
    notes: Counter[str] = Counter()
    for key, target in wanted.items():
        name = next((n for n in _names(key, by_endings) if n in fitted), None)
        if name is None:
            continue
        source = fitted[name]
        if key.endswith(BIAS_INDEX):
            fitted[name] = target
        elif source.shape == target.shape:
            continue
        elif key.endswith(QUERIES) and _is_query(key, wanted):
            if source.shape[1:] == target.shape[1:]:
                fitted[name], note = _take_queries(source, target)
                notes[f"{_module(key)}: {note}"] += 1
        elif key.endswith((BIAS_TABLE, POSITIONS)):
            resized = _resize_grid(source, target)
            if resized is not None:
                fitted[name] = resized
                sizes = f"{_size(source)} in the file, {_size(target)} in the model"
                notes[f"{key.rpartition('.')[2]}: {sizes}: interpolated"] += 1
    return fitted, [f"{note} ({n} times)" if n > 1 else note for note, n in notes.items()]


def _names(key: str, by_endings: bool) -> Iterable[str]:
    # Early official checkpoints call the query features static_query.
    return endings(key) if by_endings else (key, key.replace(".query_feat.", ".static_query."))


def _is_query(key: str, wanted: Mapping[str, Tensor]) -> bool:
    """Not so in a model without a classifier, in which each query stands for a class."""
    decoder = _module(key).rpartition(".")[0]
    return f"{decoder}.{CLASSES[0]}".lstrip(".") in wanted


def _take_queries(source: Tensor, target: Tensor) -> tuple[Tensor, str]:
    """Shapes: (P,C), (Q,C) -> (Q,C)"""
    num_source, num_target = len(source), len(target)
    num_taken = min(num_source, num_target)
    taken = target.detach().clone()
    taken[:num_taken] = source[:num_taken]
    if num_source > num_target:
        return taken, f"the first {num_taken} of the file's {num_source} queries are taken"
    return taken, (
        f"the file's {num_taken} queries are the first of {num_target}; the others start anew"
    )


def _size(table: Tensor) -> str:
    """Of the windows that a bias table is for, or of a grid of positions."""
    if table.dim() == 4:
        return "{} x {}".format(*table.shape[2:])
    return f"windows of {_window(len(table))}"


def _window(num_rows: int) -> int:
    """The M of a bias table of (2M-1)**2 rows."""
    return (math.isqrt(num_rows) + 1) // 2


def _resize_grid(source: Tensor, target: Tensor) -> Tensor | None:
    """Bicubic interpolation, as in Swin's own fine-tuning; None if it is not only the size."""
    if source.dim() != target.dim():
        return None
    if target.dim() == 4:  # positions
        if source.shape[:2] != target.shape[:2]:
            return None
        return F.interpolate(source, size=target.shape[2:], mode="bicubic", align_corners=False)
    sides = [math.isqrt(len(table)) for table in (source, target)]
    if source.shape[1] != target.shape[1] or sides[0] ** 2 != len(source):
        return None
    grid = source.T.reshape(1, -1, sides[0], sides[0])  # (1, heads, 2M-1, 2M-1)
    grid = F.interpolate(grid, size=(sides[1],) * 2, mode="bicubic", align_corners=False)
    return grid.flatten(2)[0].T


def gaps(
    model_keys: set[str],
    missing: Sequence[str],
    unexpected: Sequence[str],
    wrong_shapes: Sequence[tuple[str, tuple, tuple]],
) -> list[str]:
    """What is not taken from a file, a sentence for each kind.

    Args:
        model_keys: all of the model's.
        missing, unexpected: keys that only the model has, and that only the file has.
        wrong_shapes: (key, shape in the file, shape in the model).
    """
    sentences = []
    for key, found, expected in wrong_shapes:
        if key.endswith(CLASSES[0]):
            sentences.append(
                f"{_module(key)}: {found[0] - 1} classes in the file, {expected[0] - 1} in the "
                "model: starts anew"
            )
        elif not key.endswith(CLASSES):
            sentences.append(f"{key}: {found} in the file, {expected} in the model: starts anew")
    if missing:
        sentences.append(f"not in the file, starts anew: {_branches(missing, model_keys)}")
    if unexpected:
        everything = model_keys.union(unexpected)
        sentences.append(f"not in the model, not taken: {_branches(unexpected, everything)}")
    return sentences


def _branches(keys: Sequence[str], all_keys: set[str]) -> str:
    """`keys` by the largest modules that have no others: "head (12 keys), backbone.norm0"."""
    num_all = Counter(prefix for key in all_keys for prefix in _prefixes(key))
    num_own = Counter(prefix for key in keys for prefix in _prefixes(key))
    counts = Counter(
        next(prefix for prefix in _prefixes(key) if num_own[prefix] == num_all[prefix])
        for key in keys
    )
    return ", ".join(f"{k} ({n} keys)" if n > 1 else k for k, n in counts.items())


def _prefixes(key: str) -> Iterator[str]:
    words = key.split(".")
    for i in range(1, len(words) + 1):
        yield ".".join(words[:i])


def _module(key: str) -> str:
    return key.rpartition(".")[0]


def settings_of(wrong_shapes: Sequence[tuple[str, tuple, tuple]]) -> list[str] | None:
    """The config keys that make a model to which the file fits; None if it is more than that."""
    settings = []
    for key, found, expected in wrong_shapes:
        if key.endswith(CLASSES) and found[1:] == expected[1:]:
            settings.append(f"MODEL.SEM_SEG_HEAD.NUM_CLASSES={found[0] - 1}")
        elif key.endswith(QUERIES) and found[1:] == expected[1:]:
            settings.append(f"MODEL.MASK_FORMER.NUM_OBJECT_QUERIES={found[0]}")
        elif key.endswith(BIAS_TABLE) and found[1:] == expected[1:]:
            settings.append(f"MODEL.SWIN.WINDOW_SIZE={_window(found[0])}")
        else:
            return None
    return list(dict.fromkeys(settings))
