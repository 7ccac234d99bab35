"""Runs that are killed half way, as by a machine that goes down."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from types import ModuleType


def run_until_killed(run: Callable[[], None], module: ModuleType, step: str, calls: int) -> None:
    """`run` in a process of its own, killed when the module's function `step` has had `calls`."""
    process = multiprocessing.get_context("fork").Process(
        target=_run_killed, args=(run, module, step, calls)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def _run_killed(run: Callable[[], None], module: ModuleType, step: str, calls: int) -> None:
    real, count = getattr(module, step), 0

    def counted(*args, **kwargs):
        nonlocal count
        if count == calls:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1
        return real(*args, **kwargs)

    setattr(module, step, counted)
    run()
