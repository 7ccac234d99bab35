"""The model zoo's rule to the letter, what it hides, and what can never pass."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from mask2former.curves import Series, compare, report

PASS, FAIL, NOTHING = 0, 1, 2
# What a published MaskFormer comparison printed.
PUBLISHED = """\
MeanRelativeError: 0.010836834695985096
MeanAbsoluteError: -0.3247330665588379
Rule,mean_absolute_error -0.3247330665588379
pass mean_relative_error=0.010836834695985096 <= 0.05 or mean_absolute_error=-0.3247330665588379 \
<= 0.0002"""


def series(values, start=0):
    return Series(np.arange(start, start + len(values)), np.array(values, float))


def with_means(relative, absolute, reference=(10.0, 40.0)):
    """Two losses of which the rule's means are these: two equations in two differences."""
    b = np.array(reference)
    difference = np.linalg.solve([1 / b / 2, [0.5, 0.5]], [relative, absolute])
    return series(b + difference), series(b)


def said(a, b):
    return list(report(compare(a, b)))


def numbers(text):
    return [float(x) for x in re.findall(r"-?\d+\.\d+", text)]


def without_numbers(text):
    return re.sub(r"-?\d+\.\d+", "#", text)


def test_the_published_figures_are_said_in_the_published_words():
    lines = "\n".join(said(*with_means(0.010836834695985096, -0.3247330665588379))[:4])
    assert without_numbers(lines) == without_numbers(PUBLISHED)
    assert numbers(lines) == pytest.approx(numbers(PUBLISHED), rel=1e-12)


def test_means_are_of_all_iterations():
    lines = said(series([11.0, 18.0]), series([10.0, 20.0]))
    assert lines[:2] == ["MeanRelativeError: 0.0", "MeanAbsoluteError: -0.5"]


@pytest.mark.parametrize(
    "relative, absolute, rule, passes",
    [
        (0.04, 0.4, "relative", True),
        (0.06, 0.0001, "absolute", True),
        (0.06, 0.0003, "absolute", False),
        (0.06, 0.6, "relative", False),
        (-0.5, 9.0, "relative", True),
        (0.5, -9.0, "absolute", True),
    ],
)
def test_either_mean_is_enough(relative, absolute, rule, passes):
    a, b = with_means(relative, absolute)
    lines = said(a, b)
    assert lines[2].startswith(f"Rule,mean_{rule}_error ")
    assert lines[3].startswith("pass " if passes else "fail ")
    assert compare(a, b).passes is passes


def test_a_pass_by_signs_alone_is_warned_of():
    b = series([10.0] * 10)
    a = series([5.0, 15.0] * 5)
    lines = said(a, b)
    assert lines[3].startswith("pass ")
    assert "mean |A-B|/|B| 0.5, mean |A-B| 5;" in lines[5] and "50.00%" in lines[5]
    assert any(line.startswith("WARNING: the rule is met only because") for line in lines)
    close = said(series([10.1, 9.9]), series([10.0, 10.0]))
    assert not any(line.startswith("WARNING") for line in close)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("broken", ["A", "B"])
def test_a_loss_that_is_not_finite_fails(value, broken):
    good, bad = series([1.0, 1.0, 1.0]), series([1.0, value, 1.0])
    pair = (bad, good) if broken == "A" else (good, bad)
    lines = said(*pair)
    assert lines[3].startswith("fail ")
    assert f"FAILURE: the loss of {broken} is not finite in iteration 1 ({value})" in lines


def test_it_fails_also_where_the_other_has_nothing():
    lines = said(series([1.0, 1.0, np.nan]), series([1.0, 1.0]))
    assert lines[:2] == ["MeanRelativeError: 0.0", "MeanAbsoluteError: 0.0"]
    assert lines[3].startswith("fail ") and lines[-1].startswith("FAILURE: the loss of A")


def test_many_that_are_not_finite_are_counted():
    assert said(series([np.nan] * 9), series([1.0] * 9))[-1].endswith(
        "iteration 0 (nan), 1 (nan), 2 (nan) and 6 more"
    )


def test_a_reference_of_zero_leaves_the_absolute_half():
    lines = said(series([0.0001, 1.0]), series([0.0, 1.0]))
    assert lines[0] == "MeanRelativeError: inf" and lines[3].startswith("pass ")
    assert "B is 0 in iteration 0: there a relative error means nothing" in lines[-1]
    # Below zero a relative error would be -inf, and smaller than any limit.
    assert not compare(series([-1.0, 9.0]), series([0.0, 1.0])).passes
    assert not compare(series([0.0, 9.0]), series([0.0, 1.0])).passes


def test_unsigned_errors_are_also_of_where_the_reference_is_zero():
    b = [1.0] * 10
    b[2] = 0.0
    lines = said(series([1.0, 1.0, 3.1, *b[3:]]), series(b))
    assert lines[1] == "MeanAbsoluteError: 0.31"
    assert lines[5] == (
        "Unsigned: mean |A-B|/|B| 0, mean |A-B| 0.31; furthest apart in iteration 2: A 3.1, B 0"
    )
    assert said(series([0.5]), series([0.0]))[5] == (
        "Unsigned: mean |A-B| 0.5; furthest apart in iteration 0: A 0.5, B 0"
    )
    lines = said(series([3.0, -3.0]), series([0.0, 0.0]))
    assert lines[3].startswith("pass ") and "the losses are 3 apart on average" in lines[6]


def test_the_furthest_apart_is_so_by_the_difference():
    lines = said(series([110.0, 1.5]), series([100.0, 1.0]))
    assert lines[5].endswith("furthest apart in iteration 0: A 110, B 100, 10.00%")


def test_unsigned_errors_say_that_what_is_not_finite_is_left_out():
    lines = said(series([1.0, np.nan, 3.0, np.inf]), series([2.0, 1.0, np.nan, np.inf]))
    assert lines[5] == (
        "Unsigned: mean |A-B|/|B| 0.5, mean |A-B| 1; furthest apart in iteration 0: A 1, B 2, "
        "50.00%; without the 3 in which A or B is not finite"
    )


def test_losses_are_aligned_by_their_iterations():
    a, b = series([1.0, 2.0, 3.0, 4.0], start=10), series([9.0, 3.0, 4.0, 5.0, 6.0], start=11)
    result = compare(a, b)
    assert result.iterations.tolist() == [11, 12, 13]
    assert result.a.tolist() == [2.0, 3.0, 4.0] and result.b.tolist() == [9.0, 3.0, 4.0]
    assert (result.num_only_a, result.num_only_b) == (1, 2)
    assert "Compared: 3 iterations, the first 11, the last 13" in said(a, b)[4]
    assert "only A has 1 more, only B 2" in said(a, b)[4]
    with pytest.raises(ValueError, match="no iteration is in both: A has some of 0 to 1, B some"):
        compare(series([1.0, 1.0]), series([1.0], start=5))


@pytest.fixture
def tool(tmp_path, run_tool):
    """tools/compare_loss.py on two losses: exit code, stdout, stderr."""

    def run(a, b, *words):
        for name, losses in (("a.json", a), ("b.json", b)):
            lines = [{"iteration": i, "total_loss": loss} for i, loss in enumerate(losses)]
            (tmp_path / name).write_text("".join(json.dumps(x) + "\n" for x in lines))
        return run_tool("compare_loss.py", tmp_path / "a.json", tmp_path / "b.json", *words)

    return run


def test_the_tools_exit_code_is_the_verdict(tool):
    code, out, err = tool([1.0, 1.0], [1.0, 1.0])
    assert code == PASS and "\npass mean_relative_error=0.0 <= 0.05 or " in out and not err
    assert tool([2.0, 2.0], [1.0, 1.0])[0] == FAIL
    assert tool([1.0, float("nan")], [1.0, 1.0])[0] == FAIL
    code, out, err = tool([], [1.0])
    assert code == NOTHING and not out and "a.json: no losses found" in err
    assert tool([1.0], [1.0], "--no-such-option")[0] == NOTHING


def test_the_tools_picture_has_both_losses_and_their_difference(tool, tmp_path):
    path = tmp_path / "new folder" / "loss.png"
    b = 20 + 60 * np.exp(-np.arange(200) / 40)
    a = np.where(np.arange(200) == 50, np.nan, b * 1.2)
    code, out, _ = tool(a.tolist(), b.tolist(), "-o", path)
    assert code == FAIL and f"Picture: {path}" in out
    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
    upper, lower = np.split(picture, [picture.shape[0] * 11 // 20])
    for part, colours in (
        (upper, [(0, 114, 178), (213, 94, 0), (192, 0, 0)]),  # A, B, and where A is not finite
        (lower, [(85, 85, 85), (224, 243, 238)]),  # the difference, and the band of 5 %
    ):
        for colour in colours:
            assert (abs(part - colour).max(-1) < 12).sum() > 20, colour


def test_a_picture_is_of_the_kind_that_its_name_says(tool, tmp_path):
    assert tool([1.0], [1.0], "-o", tmp_path / "loss.jpg")[0] == PASS
    assert Image.open(tmp_path / "loss.jpg").format == "JPEG"
    code, _, err = tool([1.0], [1.0], "-o", tmp_path / "loss.abc")
    assert code == NOTHING and "abc" in err and "png" in err


@pytest.mark.parametrize("output, picture", [("", "comparison.png"), ("loss", "loss.png")])
def test_the_tool_says_where_the_picture_is(tool, tmp_path, output, picture):
    _, out, _ = tool([1.0], [1.0], "-o", tmp_path / output)
    assert out.endswith(f"\nPicture: {tmp_path / picture}\n")
    assert Image.open(tmp_path / picture).format == "PNG"


def test_a_picture_that_cannot_be_written_is_said_with_its_path(tool, tmp_path):
    path = tmp_path / "a.json" / "loss.png"
    code, _, err = tool([1.0], [1.0], "-o", path)
    assert code == NOTHING and err.startswith(f"{path}: the picture cannot be written (")
