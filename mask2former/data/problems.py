"""What is wrong with a dataset's files, found without stopping at the first fault."""

import logging
from dataclasses import dataclass

from detectron2.utils.logger import log_first_n

LISTS_ALL = "python tools/check_dataset.py"


@dataclass(frozen=True)
class Problem:
    """One fault of a dataset."""

    kind: str  # a few words, the same for all of its sort
    text: str  # a sentence: where, what was found, what to do
    is_fatal: bool = True  # a training cannot do with it; else it is to be looked at only


def by_kind(problems: list[Problem]) -> dict[str, list[Problem]]:
    """The problems of each kind, the kinds in the order in which they turn up."""
    found: dict[str, list[Problem]] = {}
    for problem in problems:
        found.setdefault(problem.kind, []).append(problem)
    return found


def refuse_fatal(name: str, problems: list[Problem]) -> None:
    """Log once what a training can do with; raise what it cannot.

    Raises:
        ValueError: the first fatal problem, and how many more there are.
    """
    fatal = [problem.text for problem in problems if problem.is_fatal]
    if fatal:
        more = f" (and {len(fatal) - 1} more; {LISTS_ALL} {name} lists them)"
        raise ValueError(fatal[0] + (more if len(fatal) > 1 else ""))
    for kind, found in by_kind(problems).items():
        message = f"{name}: {len(found)} x {kind} (the first: {found[0].text})"
        log_first_n(logging.WARNING, message, key="message")
