"""What is wrong with a user's files, found without stopping at the first fault."""

import logging
from collections import Counter
from dataclasses import dataclass

from detectron2.utils.logger import log_first_n

LISTS_ALL = "python tools/check_dataset.py"


@dataclass(frozen=True)
class Problem:
    """One fault, or with `is_fatal` False something that a training can do with."""

    kind: str  # a few words, the same for all of its sort
    text: str  # a sentence: where, what was found, what to do
    is_fatal: bool = True


def refuse_fatal(name: str, problems: list[Problem]) -> None:
    """Log what a training can do with, once; raise what it cannot.

    Raises:
        ValueError: the first fatal problem, and how many more there are.
    """
    fatal = [problem.text for problem in problems if problem.is_fatal]
    if fatal:
        more = f" (and {len(fatal) - 1} more; {LISTS_ALL} {name} lists them)"
        raise ValueError(fatal[0] + (more if len(fatal) > 1 else ""))
    first = {problem.kind: problem.text for problem in reversed(problems)}
    for kind, count in Counter(problem.kind for problem in problems).items():
        message = f"{name}: {count} x {kind} (the first: {first[kind]})"
        log_first_n(logging.WARNING, message, key="message")
