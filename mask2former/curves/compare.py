"""Whether two losses are those of one training on two devices: the model zoo's rule, and beside it
what the rule hides.

The rule's two means are signed, so what is too high in one iteration makes up for what is too low
in another, and a loss far below the reference passes. It is kept to the letter, because it is what
a model zoo asks for.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mask2former.curves.read import Series

MAX_RELATIVE_ERROR = 0.05
MAX_ABSOLUTE_ERROR = 0.0002
NUM_EXAMPLES = 3


@dataclass(frozen=True)
class Comparison:
    """Loss A against the reference, loss B, in the N iterations that both have."""

    iterations: np.ndarray  # (N,) int
    a: np.ndarray  # (N,) float
    b: np.ndarray  # (N,) float
    num_only_a: int  # iterations that B does not have
    num_only_b: int
    not_finite: tuple[tuple[str, int, float], ...]  # "A" or "B", iteration and loss, of all of them

    @property
    def relative(self) -> np.ndarray:
        """(a - b) / b (N,); not finite where b is 0."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return (self.a - self.b) / self.b

    @property
    def mean_relative_error(self) -> float:
        """Signed."""
        with np.errstate(invalid="ignore"):
            return float(np.mean(self.relative))

    @property
    def mean_absolute_error(self) -> float:
        """Signed, in spite of its name."""
        with np.errstate(invalid="ignore"):
            return float(np.mean(self.a - self.b))

    @property
    def passes(self) -> bool:
        """The rule: either mean is small enough. A mean that is no number is not, and no loss may
        be one."""
        limits = (
            (self.mean_relative_error, MAX_RELATIVE_ERROR),
            (self.mean_absolute_error, MAX_ABSOLUTE_ERROR),
        )
        meets = any(np.isfinite(mean) and mean <= limit for mean, limit in limits)
        return meets and not self.not_finite


def compare(a: Series, b: Series) -> Comparison:
    """Compare loss `a` with the reference `b`, iteration by iteration.

    Raises:
        ValueError: they have no iteration in common.
    """
    shared, in_a, in_b = np.intersect1d(a.iterations, b.iterations, return_indices=True)
    if not len(shared):
        spans = [f"{x.iterations[0]} to {x.iterations[-1]}" for x in (a, b)]
        raise ValueError(
            f"no iteration is in both: A has some of {spans[0]}, B some of {spans[1]}; log both "
            "in the same iterations"
        )
    not_finite = [
        (name, int(series.iterations[i]), float(series.values[i]))
        for name, series in (("A", a), ("B", b))
        for i in np.flatnonzero(~np.isfinite(series.values))
    ]
    return Comparison(
        shared,
        a.values[in_a],
        b.values[in_b],
        len(a.iterations) - len(shared),
        len(b.iterations) - len(shared),
        tuple(not_finite),
    )


def report(result: Comparison) -> Iterator[str]:
    """What there is to say: first the rule in the model zoo's own lines, then what it hides."""
    relative, absolute = result.mean_relative_error, result.mean_absolute_error
    rule = ("mean_relative_error", relative)
    if not relative <= absolute:
        rule = ("mean_absolute_error", absolute)
    yield f"MeanRelativeError: {relative}"
    yield f"MeanAbsoluteError: {absolute}"
    yield f"Rule,{rule[0]} {rule[1]}"
    yield (
        f"{'pass' if result.passes else 'fail'} mean_relative_error={relative} <= "
        f"{MAX_RELATIVE_ERROR} or mean_absolute_error={absolute} <= {MAX_ABSOLUTE_ERROR}"
    )
    yield (
        f"Compared: {len(result.iterations)} iterations, the first {result.iterations[0]}, the "
        f"last {result.iterations[-1]}, counted from 0; only A has {result.num_only_a} more, only "
        f"B {result.num_only_b}"
    )
    yield from _unsigned(result)
    yield from _not_finite(result)


def _unsigned(result: Comparison) -> Iterator[str]:
    is_finite = np.isfinite(result.a) & np.isfinite(result.b)
    if not is_finite.any():
        return
    iterations, a, b = (x[is_finite] for x in (result.iterations, result.a, result.b))
    difference, relative = np.abs(a - b), np.abs(result.relative[is_finite])
    of_reference, of_difference = relative[b != 0].mean() if b.any() else 0.0, difference.mean()
    said = f"mean |A-B|/|B| {of_reference:.4g}, " if b.any() else ""
    worst = np.argmax(difference)
    percent = f", {relative[worst]:.2%}" if b[worst] != 0 else ""
    num_left_out = len(is_finite) - len(a)
    yield (
        f"Unsigned: {said}mean |A-B| {of_difference:.4g}; furthest apart in iteration "
        f"{iterations[worst]}: A {a[worst]:.6g}, B {b[worst]:.6g}{percent}"
        + (f"; without the {num_left_out} in which A or B is not finite" if num_left_out else "")
    )
    only_absolute = (b == 0).any() and of_difference > MAX_ABSOLUTE_ERROR
    if result.passes and (of_reference > MAX_RELATIVE_ERROR or only_absolute):
        apart = f"{of_difference:.4g}" if only_absolute else f"{of_reference:.1%}"
        yield (
            "WARNING: the rule is met only because its means are signed: the losses are "
            f"{apart} apart on average; look at the picture (-o) before you call them equal"
        )


def _not_finite(result: Comparison) -> Iterator[str]:
    is_zero = (result.b == 0) & np.isfinite(result.a)
    if is_zero.any():
        yield (
            f"B is 0 in iteration {_some(result.iterations[is_zero].tolist())}: there a relative "
            "error means nothing, so only the absolute one can pass"
        )
    for name in ("A", "B"):
        found = [f"{at} ({loss})" for which, at, loss in result.not_finite if which == name]
        if found:
            yield f"FAILURE: the loss of {name} is not finite in iteration {_some(found)}"


def _some(items: list) -> str:
    more = f" and {len(items) - NUM_EXAMPLES} more" if len(items) > NUM_EXAMPLES else ""
    return ", ".join(map(str, items[:NUM_EXAMPLES])) + more
