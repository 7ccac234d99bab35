"""Pictures of runs: what each series was, faintly, and smoothed over it."""

import os
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter

from mask2former.curves.compare import MAX_RELATIVE_ERROR, compare
from mask2former.curves.read import (
    IMAGES_PER_SECOND,
    LEARNING_RATE,
    SCORES,
    SECONDS,
    TOTAL_LOSS,
    Run,
    Series,
)

SMOOTHED_SHARE = 20  # a smoothed value is the mean over this part of the run
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")
BROKEN = "#C00000"
HEADROOM = 1.08  # times the highest value, so that no curve lies on the frame
HEIGHT = 2.8  # of a row of panels, in inches


class Curve(NamedTuple):
    """A line of a panel."""

    label: str
    colour: str
    series: Series


class Panel(NamedTuple):
    """One pair of axes."""

    title: str
    curves: Sequence[Curve]
    look: Literal["noisy", "exact", "points"] = "noisy"


def draw_runs(runs: Mapping[str, Run], picture_file: str) -> None:
    """Losses, learning rate, throughput and scores of runs, by their labels: what they have of it.

    One run has a panel with all parts of its loss; several have one for each part.

    Raises:
        ValueError: the picture is of no known kind.
        OSError: it cannot be written.
    """
    first, *rest = _panels(runs)
    num_rows = 1 + (len(rest) + 1) // 2
    figure = Figure(figsize=(11, HEIGHT * (num_rows + 0.2)), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.1, w_pad=0.1)
    grid = figure.add_gridspec(num_rows, 2, height_ratios=[1.2] + [1] * (num_rows - 1))
    places = [grid[0, :], *(grid[1 + i // 2, i % 2] for i in range(len(rest)))]
    if len(rest) % 2:
        places[-1] = grid[-1, :]
    all_iterations = [x.series.iterations for panel in (first, *rest) for x in panel.curves]
    left, right = (bound(np.concatenate(all_iterations)) for bound in (np.min, np.max))
    margin = 0.01 * max(right - left, 1)
    for place, panel in zip(places, (first, *rest)):
        axes = figure.add_subplot(place)
        _draw_panel(axes, panel)
        axes.set_xlim(left - margin, right + margin)
    _save(figure, picture_file)


def _panels(runs: Mapping[str, Run]) -> list[Panel]:
    colours = {label: COLOURS[i % len(COLOURS)] for i, label in enumerate(runs)}

    def panel(title: str, name: str, look: str = "noisy") -> list[Panel]:
        curves = [Curve(k, colours[k], run[name]) for k, run in runs.items() if name in run]
        return [Panel(title, curves, look)] if curves else []

    names = list(dict.fromkeys(name for run in runs.values() for name in run))
    parts = [name for name in names if "loss_" in name]
    panels = panel("Loss", TOTAL_LOSS)
    if len(runs) == 1 and parts:
        (run,) = runs.values()
        curves = [
            Curve(x, COLOURS[(i + 1) % len(COLOURS)], run[x]) for i, x in enumerate(sorted(parts))
        ]
        panels.append(Panel("Loss by part", curves))
    else:
        panels += [p for part in sorted(parts) for p in panel(part, part)]
    panels += panel("Learning rate", LEARNING_RATE, "exact")
    panels += _throughput(runs, colours)
    for name in names:
        if name.startswith(tuple(SCORES)):
            panels += panel(f"Validation: {name}", name, "points")
    return panels


def _throughput(runs: Mapping[str, Run], colours: Mapping[str, str]) -> list[Panel]:
    """Images a second if all runs tell them, else iterations a second."""
    known = {k: run for k, run in runs.items() if {IMAGES_PER_SECOND, SECONDS} & run.keys()}
    if not known:
        return []
    if all(IMAGES_PER_SECOND in run for run in known.values()):
        curves = [Curve(k, colours[k], run[IMAGES_PER_SECOND]) for k, run in known.items()]
        return [Panel("Throughput: images a second", curves)]
    curves = [
        Curve(k, colours[k], Series(run[SECONDS].iterations, 1 / run[SECONDS].values))
        for k, run in known.items()
        if SECONDS in run
    ]
    return [Panel("Throughput: iterations a second", curves)]


def _draw_panel(axes: Axes, panel: Panel) -> None:
    for label, colour, (iterations, values) in panel.curves:
        if panel.look == "noisy":
            axes.plot(iterations, values, color=colour, alpha=0.3, linewidth=0.8)
            axes.plot(iterations, smoothed(values), color=colour, linewidth=1.8, label=label)
            _mark_broken(axes, label, iterations[~np.isfinite(values)])
        else:
            marker = "o" if panel.look == "points" else ""
            axes.plot(iterations, values, color=colour, marker=marker, markersize=4, label=label)
    _style(axes, panel.title)
    axes.set_ylim(bottom=0)
    values = np.concatenate([curve.series.values for curve in panel.curves])
    top = HEADROOM * values[np.isfinite(values)].max(initial=0)
    if top > max(axes.get_ylim()):  # its own margin is a share of what the values span
        axes.set_ylim(top=top)
    if panel.look == "exact":
        axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0), useMathText=True)
    if len(axes.get_legend_handles_labels()[0]) > 1:
        axes.legend(frameon=False, fontsize=9)


def _mark_broken(axes: Axes, label: str, iterations: np.ndarray) -> None:
    if len(iterations):
        place = axes.get_xaxis_transform()  # at the lower edge, whatever the values are
        text = f"{label}: not finite in {len(iterations)}"
        zeros = np.zeros(len(iterations))
        look = {"color": BROKEN, "markersize": 16, "markeredgewidth": 1.5, "clip_on": False}
        axes.plot(iterations, zeros, "|", transform=place, label=text, **look)


def draw_comparison(a: Series, b: Series, labels: tuple[str, str], picture_file: str) -> None:
    """Two losses, and below them how far A is from the reference B, in percent of it.

    Raises:
        ValueError: they have no iteration in common, or the picture is of no known kind.
        OSError: it cannot be written.
    """
    result = compare(a, b)
    figure = Figure(figsize=(11, 7), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.1, w_pad=0.1)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    named = zip(("A", "B"), labels, COLOURS, (a, b))
    curves = [Curve(f"{x}: {label}", colour, series) for x, label, colour, series in named]
    _draw_panel(upper, Panel("Loss", curves))
    upper.set_xlabel("")

    relative = np.where(np.isfinite(result.relative), result.relative, np.nan)
    lower.axhspan(-MAX_RELATIVE_ERROR, MAX_RELATIVE_ERROR, color="#009E73", alpha=0.12, linewidth=0)
    lower.axhline(0, color="#444444", linewidth=0.8)
    lower.plot(result.iterations, relative, color=COLOURS[6], alpha=0.35, linewidth=0.8)
    lower.plot(result.iterations, smoothed(relative), color=COLOURS[6], linewidth=1.8)
    _style(lower, f"(A - B) / B; the band is ±{MAX_RELATIVE_ERROR:.0%}")
    lower.yaxis.set_major_formatter(PercentFormatter(1))
    _save(figure, picture_file)


def smoothed(values: Sequence[float]) -> np.ndarray:
    """Mean over the values around each, of those that are finite.

    At the start, where losses fall steeply, over as few after it as there are before it.
    """
    values = np.asarray(values, float)
    half = max(1, len(values) // SMOOTHED_SHARE // 2)
    is_finite = np.isfinite(values)
    sums, counts = (
        np.cumsum(np.insert(x, 0, 0.0)) for x in (np.where(is_finite, values, 0), is_finite)
    )
    here = np.arange(len(values))
    before = np.minimum(half, here)
    starts, ends = here - before, np.minimum(here + before + 1, len(values))
    counts = counts[ends] - counts[starts]
    return np.where(counts > 0, (sums[ends] - sums[starts]) / np.maximum(counts, 1), np.nan)


def _style(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    axes.set_xlabel("iteration")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.01)


def picture_path(output: str, name: str) -> str:
    """Where a picture goes that is wanted at `output`: a folder has it by this name, and what has
    no suffix gets .png, as matplotlib would write it."""
    if os.path.isdir(output) or not os.path.basename(output):
        return os.path.join(output, name)
    root, suffix = os.path.splitext(output)
    return output if suffix.strip(".") else f"{root}.png"


def _save(figure: Figure, picture_file: str) -> None:
    try:
        os.makedirs(os.path.dirname(picture_file) or ".", exist_ok=True)
        figure.savefig(picture_file, dpi=110)
    except OSError as error:
        raise OSError(
            f"{picture_file}: the picture cannot be written ({error.strerror or error}); name "
            "another place"
        ) from error
