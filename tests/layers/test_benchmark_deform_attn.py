import runpy
import sys
from pathlib import Path

TOOL = str(Path(__file__).parents[2] / "tools" / "benchmark_deform_attn.py")


def test_every_op_that_runs_is_timed(monkeypatch, capsys):
    words = ["--device", "cpu", "--size", "40", "64", "--batch-size", "2", "--repeat", "1"]
    monkeypatch.setattr(sys, "argv", [TOOL, *words])
    runpy.run_path(TOOL, run_name="__main__")
    first, *table = capsys.readouterr().out.splitlines()
    assert first == "56 queries of 2 image(s) on cpu"  # 2 x 2, 3 x 4 and 5 x 8 pixels, rounded up
    assert [line.split("  ")[0] for line in table[2:]] == ["Gather", "Reference (auto)"]
    assert all(len(line.split()) >= 7 for line in table[2:])
