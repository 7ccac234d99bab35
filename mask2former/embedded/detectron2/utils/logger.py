"""Loggers that write to the console and to a file a process, tables, and logging now and then."""

import collections
import logging
import os
import sys
import time
from typing import TextIO

from tabulate import tabulate
from termcolor import colored

__all__ = [
    "create_small_table",
    "log_every_n",
    "log_every_n_seconds",
    "log_first_n",
    "setup_logger",
]

_PLAIN_FORMAT = "[%(asctime)s] %(name)s %(levelname)s: %(message)s"
_DATE_FORMAT = "%m/%d %H:%M:%S"


class _ColorFormatter(logging.Formatter):
    """Time and name in green, a red mark before warnings and errors; plain if not on a terminal.

    Args:
        name: of the logger; of those below it, it is written as `abbreviation`, or left out if "".
    """

    def __init__(self, name: str, abbreviation: str) -> None:
        prefix = colored("[%(asctime)s %(name)s]:", "green")
        super().__init__(f"{prefix} %(message)s", _DATE_FORMAT)
        self.root, self.abbreviation = f"{name}.", abbreviation and f"{abbreviation}."
        self.marks = {
            logging.WARNING: colored("WARNING", "red", attrs=["blink"]),
            logging.ERROR: colored("ERROR", "red", attrs=["underline"]),
            logging.CRITICAL: colored("CRITICAL", "red", attrs=["underline"]),
        }

    def formatMessage(self, record: logging.LogRecord) -> str:
        if record.name.startswith(self.root):
            record = logging.makeLogRecord(record.__dict__)  # other handlers keep the full name
            record.name = self.abbreviation + record.name.removeprefix(self.root)
        line = super().formatMessage(record)
        mark = self.marks.get(record.levelno)
        return f"{mark} {line}" if mark else line


class _ConsoleHandler(logging.StreamHandler):
    """Writes to what sys.stdout is at the moment of logging: it may have been redirected."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        return sys.stdout


def setup_logger(
    output: str | None = None,
    distributed_rank: int = 0,
    *,
    color: bool = True,
    name: str = "detectron2",
    abbrev_name: str | None = None,
    enable_propagation: bool = False,
    configure_stdout: bool = True,
) -> logging.Logger:
    """The logger `name`, writing to the console (rank 0 only) and to a file.

    A second call adds nothing that is there already.

    Args:
        output: a file ending in .txt or .log, or a directory, which gets log.txt. Ranks above 0
            write to the same name with ".rank<N>" appended. None writes no file.
        color: whether to colour the console; without, it gets the longer lines of the file.
        abbrev_name: on the console, `name` in the names of the loggers below it; None: "d2" for
            detectron2 itself.
        enable_propagation: whether records also reach the loggers above.
        configure_stdout: whether to write to the console.
    """
    logger = logging.getLogger(name)
    logger.setLevel(logging.DEBUG)
    logger.propagate = enable_propagation
    plain = logging.Formatter(_PLAIN_FORMAT, _DATE_FORMAT)
    has_console = any(isinstance(h, _ConsoleHandler) for h in logger.handlers)
    if configure_stdout and distributed_rank == 0 and not has_console:
        console = _ConsoleHandler()
        if abbrev_name is None:
            abbrev_name = "d2" if name == "detectron2" else name
        console.setFormatter(_ColorFormatter(name, abbrev_name) if color else plain)
        logger.addHandler(console)
    if output is not None:
        path = os.path.abspath(_log_file(output, distributed_rank))
        if path not in [getattr(h, "baseFilename", None) for h in logger.handlers]:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            file = logging.FileHandler(path, encoding="utf-8")
            file.setFormatter(plain)
            logger.addHandler(file)
    return logger


def _log_file(output: str, rank: int) -> str:
    path = output if output.endswith((".txt", ".log")) else os.path.join(output, "log.txt")
    return f"{path}.rank{rank}" if rank > 0 else path


def create_small_table(small_dict: dict) -> str:
    """One row of values under their keys, as a table; for a few keys only."""
    return tabulate(
        [list(small_dict.values())],
        headers=list(small_dict),
        tablefmt="pipe",
        floatfmt=".3f",
        stralign="center",
        numalign="center",
    )


_num_calls: collections.Counter = collections.Counter()
_last_time: dict[tuple, float] = {}


def _caller() -> tuple[str, tuple]:
    """Module name of the code that called this file's function, and a key for its line."""
    frame = sys._getframe(2)
    module = frame.f_globals.get("__name__", "__main__")
    # A script's name would be "__main__"; its records belong to no package.
    name = "detectron2" if module == "__main__" else module
    return name, (frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)


def log_first_n(
    lvl: int, msg: str, n: int = 1, *, name: str | None = None, key: str | tuple = "caller"
) -> None:
    """Log the first `n` times.

    Args:
        key: what counts as the same: "caller" (the calling line), "message", or a tuple of both.
    """
    module, line = _caller()
    keys = (key,) if isinstance(key, str) else tuple(key)
    identity = (
        "first",
        *(line if "caller" in keys else ()),
        *((msg,) if "message" in keys else ()),
    )
    _num_calls[identity] += 1
    if _num_calls[identity] <= n:
        logging.getLogger(name or module).log(lvl, msg)


def log_every_n(lvl: int, msg: str, n: int = 1, *, name: str | None = None) -> None:
    """Log the first of every `n` calls from this line."""
    module, line = _caller()
    identity = ("every", *line)
    _num_calls[identity] += 1
    if n == 1 or _num_calls[identity] % n == 1:
        logging.getLogger(name or module).log(lvl, msg)


def log_every_n_seconds(lvl: int, msg: str, n: int = 1, *, name: str | None = None) -> None:
    """Log unless this line did so less than `n` seconds ago."""
    module, line = _caller()
    now = time.monotonic()
    if line not in _last_time or now - _last_time[line] >= n:
        logging.getLogger(name or module).log(lvl, msg)
        _last_time[line] = now
