"""Pictures of runs have a panel for what there is, with each run in it, as the tool draws them."""

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from mask2former.curves import Series, draw_runs
from mask2former.curves.draw import Curve, Panel, _draw_panel, _panels, smoothed


def series(values):
    return Series(np.arange(len(values)), np.array(values, float))


def panels(**runs):
    """Titles and labels."""
    return {p.title: [curve.label for curve in p.curves] for p in _panels(runs)}


LOSSES = {"total_loss": series([3.0, 2.0]), "loss_ce": series([1.0, 1.0])}
RATES = {"lr": series([0.1, 0.2]), "seconds": series([0.5, 0.25])}


def test_a_panel_for_what_there_is():
    assert panels(a={"total_loss": series([1.0])}) == {"Loss": ["a"]}
    run = LOSSES | RATES | {"loss_dice": series([1.0]), "mIoU": series([1.0]), "AP x": series([1])}
    assert panels(a=run) == {
        "Loss": ["a"],
        "Loss by part": ["loss_ce", "loss_dice"],
        "Learning rate": ["a"],
        "Throughput: iterations a second": ["a"],
        "Validation: mIoU": ["a"],
        "Validation: AP x": ["a"],
    }


def test_several_runs_share_panels():
    images = {"images_per_second": series([8.0, 9.0])}
    assert panels(a=LOSSES | RATES, b=LOSSES, c=LOSSES | RATES | images) == {
        "Loss": ["a", "b", "c"],
        "loss_ce": ["a", "b", "c"],
        "Learning rate": ["a", "c"],
        "Throughput: iterations a second": ["a", "c"],
    }
    assert panels(a=LOSSES | images, b=LOSSES)["Throughput: images a second"] == ["a"]
    mixed = panels(a=LOSSES | images, b=LOSSES | RATES)
    assert mixed["Throughput: iterations a second"] == ["b"]


def test_throughput_is_what_a_second_holds():
    (panel,) = (p for p in _panels({"a": LOSSES | RATES}) if p.title.startswith("Throughput"))
    assert panel.curves[0].series.values.tolist() == [2.0, 4.0]


def test_smoothing_is_the_mean_around_each():
    values = np.arange(80.0) ** 2  # 80: over two on each side
    found = smoothed(values)
    assert found[20] == values[18:23].mean()
    assert found[0] == values[0] and found[1] == values[:3].mean()
    assert found[-1] == values[-3:].mean()
    assert smoothed([1.0, 2.0, 6.0]).tolist() == [1.0, 3.0, 4.0]
    assert smoothed([5.0]).tolist() == [5.0]


def test_smoothing_leaves_out_what_is_not_finite():
    assert smoothed([1.0, np.nan, 5.0, np.inf, 7.0]).tolist() == [1.0, 3.0, 5.0, 6.0, 7.0]
    assert np.isnan(smoothed([np.nan, np.nan, np.nan, 1.0])).tolist() == [True, True, False, False]


def test_a_picture_has_each_runs_colour_and_what_is_not_finite(tmp_path):
    falling = 20 + 60 * np.exp(-np.arange(300) / 50)
    broken = np.where(np.arange(300) % 100 == 99, np.nan, falling + 20)
    runs = {name: {"total_loss": series(x)} for name, x in (("a", falling), ("b", broken))}
    draw_runs(runs, str(tmp_path / "a" / "curve.png"))
    picture = np.asarray(Image.open(tmp_path / "a" / "curve.png").convert("RGB")).astype(int)
    for colour in ((0, 114, 178), (213, 94, 0), (192, 0, 0)):
        assert (abs(picture - colour).max(-1) < 12).sum() > 30, colour


@pytest.mark.parametrize("values", [[131.0], [131.0, 130.5, 131.0], [131.0, np.nan, np.inf]])
@pytest.mark.parametrize("look", ["noisy", "exact", "points"])
def test_there_is_room_above_a_short_or_flat_curve(values, look):
    axes = Figure().subplots()
    _draw_panel(axes, Panel("Loss", [Curve("a", "red", series(values))], look))
    bottom, top = axes.get_ylim()
    assert bottom == 0 and 1.05 * 131 < top < 1.2 * 131


def test_a_panel_without_a_finite_value_is_drawn():
    axes = Figure().subplots()
    _draw_panel(axes, Panel("Loss", [Curve("a", "red", series([np.nan, np.inf]))]))
    assert np.isfinite(axes.get_ylim()).all()


@pytest.fixture
def tool(tmp_path, monkeypatch, run_tool):
    """tools/plot_curve.py, run where the runs are: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    for name in ("one/run", "two/run"):
        Path(name).mkdir(parents=True)
        lines = [{"iteration": i, "total_loss": 9.0 / (i + 1)} for i in range(5)]
        Path(name, "metrics.json").write_text("".join(json.dumps(x) + "\n" for x in lines))

    def run(*words):
        code, out, err = run_tool("plot_curve.py", *words)
        return code or 0, out, err

    return run


@pytest.mark.parametrize(
    "words, picture",
    [
        (["one/run"], "one/run/loss_curve.png"),
        (["one/run/metrics.json"], "one/run/metrics.png"),
        (["one/run", "two/run"], "loss_curve.png"),
        (["one/run", "two/run", "--labels", "a", "b", "-o", "x/y.jpg"], "x/y.jpg"),
        (["one/run", "-o", "two/run"], "two/run/loss_curve.png"),
        (["one/run", "-o", "new/"], "new/loss_curve.png"),
        (["one/run", "-o", "new/curve"], "new/curve.png"),
        (["one/run", "-o", "curve."], "curve.png"),
    ],
)
def test_the_tool_says_where_the_picture_is(tool, words, picture):
    assert tool(*words) == (0, f"Picture: {picture}\n", "")
    assert Image.open(picture).size[0] > 800


@pytest.mark.parametrize(
    "words, sentence",
    [
        ([], "name what to draw: a run's OUTPUT_DIR, its metrics.json, or a log\n"),
        (
            ["none"],
            "none: no such file; name the OUTPUT_DIR of a run, its metrics.json, or a log\n",
        ),
        (
            ["one/run", "two/run", "--labels", "a"],
            "2 runs, but the labels ['a']; give each its own\n",
        ),
    ],
)
def test_the_tool_says_what_is_wrong_in_a_sentence(tool, words, sentence):
    assert tool(*words) == (2, "", sentence)


def test_a_picture_that_cannot_be_written_is_said_with_its_path(tool):
    Path("file").touch()
    code, out, err = tool("one/run", "-o", "file/curve.png")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("file/curve.png: the picture cannot be written (")
    assert err.endswith("); name another place\n")
    Path("folder.png").mkdir()
    with pytest.raises(OSError, match=r"^folder.png: the picture cannot be written \(Is a dir"):
        draw_runs({"a": {"total_loss": series([1.0])}}, "folder.png")


def test_the_help_says_where_pictures_are_left(tool):
    code, out, _ = tool("--help")
    assert code == 0 and "of several runs loss_curve.png in the current folder" in " ".join(
        out.split()
    )
