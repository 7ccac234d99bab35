"""tools/benchmark.py and tools/analyze_model.py as users start them, on small pictures."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from benchmarks import deform_attn, large_picture, parts, whole_model
from benchmarks.measuring import alone, peak_gb

TOOLS = Path(__file__).parents[2] / "tools"
SMALL = ("--config-file", "quick_start.yaml", "--size", 64, 96, "--repeat", 1)
FEW = ("MODEL.DEVICE", "cpu", "MODEL.MASK_FORMER.TRAIN_NUM_POINTS", 64)


@pytest.fixture
def in_this_process(monkeypatch):
    """Interpreters of their own take seconds to start; `test_a_process_of_its_own` has one."""
    for module in (whole_model, parts, deform_attn, large_picture):
        monkeypatch.setattr(module, "alone", lambda function, *args: function(*args))


@pytest.fixture
def measured(run_tool, tmp_path, in_this_process):
    """Run rows of tools/benchmark.py: what was printed, and the tables by the JSON file."""

    def run(*words):
        code, out, err = run_tool("benchmark.py", *words[:1], "--json", tmp_path / "x", *words[1:])
        assert code is None, err
        found = json.loads((tmp_path / "x").read_text())
        assert found["torch"] == torch.__version__ and found["threads"] == torch.get_num_threads()
        assert str(found["device"]) == "cpu"
        return out, [table["rows"] for table in found["tables"]]

    return run


def test_whole_model(measured):
    names = ["ours", "ours-mixed", "reference"]
    out, (rows, differences) = measured("model", *SMALL, "--contenders", ",".join(names), *FEW)
    assert [(row["work"], row["model"]) for row in rows] == [
        (work, model) for work in ("inference", "training step") for model in names
    ]
    for row in rows:
        assert 0 < row["least s"] <= row["median s"] <= row["most s"]
        assert row["times as fast as transformers"] is None
        base = next(r for r in rows if r["work"] == row["work"] and r["model"] == "reference")
        speed = base["median s"] / row["median s"]  # of one round
        assert row["times as fast as reference"] == pytest.approx(speed)
        assert row["peak GB"] > 0.1
    logits = [k for k in differences[0] if "logits" in k]
    assert len(logits) == 2
    own, mixed, reference = differences
    assert all(own[k] == 0 for k in logits)
    assert all(reference[k] < 1e-3 for k in logits)
    assert all(0 < mixed[k] < 0.2 for k in logits)  # another type, so that it was switched on
    assert own["pixels of another class %"] == 0
    assert "| inference     | ours-mixed |" in out


@pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None,
    reason="transformers is not installed; the comparison with it needs an environment of its own",
)
def test_transformers_has_the_same_results(measured):
    words = (*SMALL, "--contenders", "ours,transformers", *FEW)
    _, (rows, differences) = measured("model", *words)
    assert [row["model"] for row in rows] == ["ours", "transformers"] * 2
    assert all(row["times as fast as transformers"] > 0 for row in rows)
    assert all(differences[1][k] < 1e-4 for k in differences[1] if "logits" in k)
    assert differences[1]["pixels of another class %"] < 0.1


def test_a_part_of_the_work(measured):
    words = (*SMALL, "--contenders", "reference", "--work", "inference", *FEW)
    _, (rows,) = measured("model", *words)
    assert [(row["work"], row["model"]) for row in rows] == [("inference", "reference")]


def test_parts(measured, monkeypatch):
    for name in ("matmul_gflops", "copy_gb_per_s"):
        monkeypatch.setattr(parts, name, lambda *args: 2.0)
    _, (rows,) = measured("parts", *SMALL, *FEW)
    figures = {(row["work"], row["part"]): row for row in rows}
    assert len(figures) == len(rows) == 5 + 2 * 4 + 1 + 1
    for row in rows:
        assert row["median ms"] > 0 and row["MB"] > 0
        assert row["arithmetic floor ms"] == pytest.approx(1000 * row["GFLOP"] / 2)
        assert row["bytes floor ms"] == pytest.approx(row["MB"] * 2**20 / 2e6)
    for work, part in (("inference", "backbone"), ("training: backward", "pixel decoder")):
        row = figures[work, part]
        floor = max(row["arithmetic floor ms"], row["bytes floor ms"])
        share = row["share of the ceiling %"]
        assert share == pytest.approx(100 * floor / row["median ms"]) and row["GFLOP"] > 0
    forward, backward = (figures[f"training: {w}", "backbone"] for w in ("forward", "backward"))
    assert 1.5 < backward["GFLOP"] / forward["GFLOP"] <= 2


def test_deformable_attention(measured):
    out, (rows,) = measured("deform_attn", "--size", 40, 64, "--repeat", 1, *FEW)
    # 2 x 2, 3 x 4 and 5 x 8 pixels, rounded up
    assert "Deformable attention: 56 queries of 1 image(s)" in out
    found = {(r["type"], r["work"], r["op"].removesuffix(" (auto)")): r for r in rows}
    assert sum("(auto)" in row["op"] for row in rows) == 4
    ops = {op for _, _, op in found}
    assert {"Reference", "Gather"} <= ops and len(found) == 4 * len(ops)
    for (_, work, _), row in found.items():
        assert row["median ms"] > 0 and row["at most MB"] > 0
        assert row["kept for backward MB"] == 0 or work != "forward"
    assert found["float32", "forward + backward", "Reference"]["kept for backward MB"] > 0
    assert found["float32", "forward", "Reference"]["times as fast as Reference"] == 1


def test_large_picture(measured):
    sizes = ("--size", 64, 96)
    _, (rows,) = measured("large_picture", *sizes, *FEW)
    assert [row["masks of instances"] for row in rows] == ["a byte a pixel", "a bit a pixel"]
    assert all(row["held beyond the network's own MB"] > 0 for row in rows)
    assert rows[0]["the network's mask logits MB"] == 200 * 16 * 24 * 4 / 2**20


def test_analyze_model(run_tool, tmp_path):
    words = ("--config-file", "quick_start.yaml", "--size", 64, 96, "--repeat", 1, "--depth", 1)
    code, out, _ = run_tool("analyze_model.py", *words, "--json", tmp_path / "x", *FEW)
    assert code is None and "| total" in out
    (table,) = json.loads((tmp_path / "x").read_text())["tables"]
    assert [r["module"] for r in table["rows"]] == [
        "backbone",
        "sem_seg_head",
        "criterion",
        "total",
    ]


def test_a_process_of_its_own():
    assert alone(os.getpid) != os.getpid()
    with pytest.raises(ValueError, match="invalid literal"):
        alone(int, "x")


def allocating(device, megabytes):
    return lambda: torch.zeros(megabytes * 2**20, dtype=torch.uint8) + 1


def test_peak_memory():
    assert peak_gb(allocating, "cpu", 200) > 0.2


def test_measuring_begins_without_our_package():
    """What is imported would count as memory of models that do without it."""
    look = "import runpy, sys; sys.path.insert(0, '.'); runpy.run_path('benchmark.py'); "
    look += "import benchmarks.measuring, benchmarks.transformers_model; "
    look += "print([m for m in sys.modules if m.startswith(('mask2former', 'detectron2'))])"
    found = subprocess.run([sys.executable, "-c", look], cwd=TOOLS, capture_output=True, text=True)
    assert found.stdout == "[]\n", found.stderr


@pytest.mark.parametrize(
    "words, told",
    [
        (["modell"], "there is no row 'modell'; name some of model, parts"),
        (["--repeat", 0], "--repeat: 0 is too small; give 1 or more"),
        (["--size", "64", "x"], "--size: invalid whole_number value: 'x'"),
        (["MODEL.DEVICE", "cpu", "MODEL.DEPTH", 7], "unknown config key MODEL.DEPTH"),
        (["--contenders", "us", *FEW], "no 'us'; name some of ours"),
        (["deform_attn", "--contenders", "x", *FEW], "MS_DEFORM_ATTN='x'; set it to"),
        (["parts", *FEW, "MODEL.COMPILE", "True"], "a compiled model has no parts"),
        (["--picture", "nowhere.png", *FEW], "nowhere.png"),
        ([*FEW, "MODEL.META_ARCHITECTURE", "SemanticSegmentor"], "only MaskFormer is measured"),
    ],
)
def test_mistakes_are_told(words, told, run_tool):
    code, _, err = run_tool("benchmark.py", *words)
    assert code == 2 and told in err


@pytest.mark.parametrize("words", [("--size", 0, 64), ("--num-targets", -1), ("--depth", 0)])
def test_numbers_that_are_too_small_are_told(words, run_tool):
    code, _, err = run_tool("analyze_model.py", *words)
    assert code == 2 and f"{words[0]}: {words[1]} is too small" in err
