"""The curves of training runs: read from any log, drawn, and compared with each other's."""

from mask2former.curves.compare import Comparison, compare, report
from mask2former.curves.draw import draw_comparison, draw_runs, picture_path
from mask2former.curves.read import Run, Series, read_run

__all__ = [
    "Comparison",
    "Run",
    "Series",
    "compare",
    "draw_comparison",
    "draw_runs",
    "picture_path",
    "read_run",
    "report",
]
