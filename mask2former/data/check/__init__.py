"""Looking a dataset through before a training does: every file, every annotation."""

from mask2former.data.check.dataset import Findings, check_dataset
from mask2former.data.check.report import report
from mask2former.data.check.sheet import draw_sheet

__all__ = ["Findings", "check_dataset", "draw_sheet", "report"]
