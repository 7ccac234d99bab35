"""Where the line runs between a user's mistake, which gets a sentence, and a bug, which keeps its
traceback.

A mistake is an error of a type in USER_ERRORS that this package raised on purpose: the innermost
frame is ours and stands at a `raise`. Whatever torch, numpy or an oversight of ours raises is a
bug.
"""

import linecache
import logging
import traceback
from pathlib import Path

from mask2former.device import is_out_of_memory

USER_ERRORS = (ValueError, OSError, FloatingPointError)
CANDIDATES = (*USER_ERRORS, RuntimeError)  # to catch and to ask; out of memory is a RuntimeError
PACKAGE = str(Path(__file__).parents[1])

OUT_OF_MEMORY = (
    "{found}; lower SOLVER.IMS_PER_BATCH, raise SOLVER.ACCUMULATE_STEPS, or take smaller images "
    "(INPUT.CROP.SIZE, INPUT.MIN_SIZE_TEST)"
)


def user_sentence(error: BaseException) -> str | None:
    """What to tell the user of `error`, or None if it is a bug."""
    if is_out_of_memory(error):
        return OUT_OF_MEMORY.format(found=str(error).splitlines()[0].rstrip("."))
    if not isinstance(error, USER_ERRORS):
        return None
    *_, (frame, line) = traceback.walk_tb(error.__traceback__)
    file = frame.f_code.co_filename
    is_ours = file.startswith(PACKAGE)
    is_deliberate = linecache.getline(file, line).lstrip().startswith("raise ")
    return str(error) if is_ours and is_deliberate else None


class NoTracebackForUserErrors(logging.Filter):
    """Keeps detectron2's training loop from logging the traceback of what gets a sentence."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return error is None or user_sentence(error) is None
