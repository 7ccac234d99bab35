"""Where the line runs between a user's mistake, which gets a sentence, and a bug, which keeps its
traceback.

A mistake is an error of a type in USER_ERRORS that this package raised on purpose: the innermost
frame is ours and stands at a `raise`. Whatever torch, numpy or an oversight of ours raises is a
bug.
"""

import linecache
import logging
import re
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

# What torch raises, wherever the program is at that moment, when a loader's worker has ended.
_WORKER = re.compile(
    r"DataLoader worker \(pid(?:\(s\))? (?P<pids>[\d, ]+)\) "
    r"(?:is killed by signal: (?P<signal>[^.]+)|"
    r"exited unexpectedly(?: with exit code (?P<code>\d+))?)"
)
_MEMORY = (
    "lower DATALOADER.NUM_WORKERS, give the machine more memory, or take smaller images; `dmesg` "
    "may tell more"
)
_WHY_WORKERS_END = {
    "Killed": f"this is what the system does when memory runs out: {_MEMORY}",
    "Bus error": "most often shared memory is full: make /dev/shm larger (docker run --shm-size "
    "8g) or lower DATALOADER.NUM_WORKERS: 0 needs none",
    "Terminated": "somebody, or the batch system, has ended it; start the run again with --resume",
    None: f"most often memory has run out: {_MEMORY}",
}
_EXIT = "what it wrote tells why: DATALOADER.NUM_WORKERS 0 shows where"
_CRASH = "a library has crashed in it: run with DATALOADER.NUM_WORKERS 0 to see where"

_LOST_PEER = re.compile(r"Connection (closed|reset) by peer")  # gloo's words for it


def user_sentence(error: BaseException) -> str | None:
    """What to tell the user of `error`, or None if it is a bug."""
    if is_out_of_memory(error):
        return OUT_OF_MEMORY.format(found=str(error).splitlines()[0].rstrip("."))
    if isinstance(error, RuntimeError) and _WORKER.match(str(error)):
        return _end_of_worker(error)
    if not isinstance(error, USER_ERRORS):
        return None
    *_, (frame, line) = traceback.walk_tb(error.__traceback__)
    file = frame.f_code.co_filename
    is_ours = file.startswith(PACKAGE)
    is_deliberate = linecache.getline(file, line).lstrip().startswith("raise ")
    return str(error) if is_ours and is_deliberate else None


def _end_of_worker(error: RuntimeError) -> str:
    ended = _WORKER.match(str(error))
    # What says more may have been noticed first, but told last.
    ended = _WORKER.match(str(error.__cause__)) or ended
    how = f"was ended by a signal ({ended['signal']})" if ended["signal"] else "has ended"
    why = _WHY_WORKERS_END.get(ended["signal"], _CRASH)
    if ended["code"]:
        how, why = f"has ended with status {ended['code']}", _EXIT
    return f"a process that loads data, pid {ended['pids']}, {how}; {why}"


class NoTracebackForUserErrors(logging.Filter):
    """Keeps detectron2's training loop from logging the traceback of what gets a sentence.

    Nor has that of a process whose peer has ended: what has happened, the peer tells.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, RuntimeError) and _LOST_PEER.search(str(error)):
            record.msg, record.args = "Another process of this run has ended, so does this one", ()
            record.exc_info = None
        return error is None or user_sentence(error) is None
