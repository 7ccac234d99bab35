"""How Ctrl-C ends the processes of a run: all of them, and without tracebacks.

A terminal and `timeout` interrupt them all at once, `kill -INT` the first one alone.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import active_children
from multiprocessing.process import BaseProcess
from types import FrameType

GRACE = 10.0  # seconds that an interrupted process may take to end
WORKER_GRACE = 1.0


def hold_interrupts() -> None:
    """Let interrupts wait, also in processes that are spawned from now on, while they import."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def take_interrupts() -> None:
    """Have those that waited, and later ones."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def ignore_interrupts() -> None:
    """Until this process ends, which has been interrupted: a second one would disturb that."""
    signal.signal(signal.SIGINT, _do_nothing)


def _do_nothing(signum: int, frame: FrameType | None) -> None:
    """Handler instead of SIG_IGN, of which Python complains if a signal has come already."""


@contextmanager
def quiet_interrupts() -> Iterator[None]:
    """Where a process trains: an interrupt ends its data loader's workers, then raises as ever."""
    before = signal.getsignal(signal.SIGINT)
    # A shell's background jobs ignore interrupts; only the main thread may handle them.
    if before is signal.SIG_IGN or threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = _handler()
    signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is handler:  # none came
            signal.signal(signal.SIGINT, before)


def _handler() -> Callable[[int, FrameType | None], None]:
    owner = os.getpid()

    def interrupt(signum: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a worker, which has this handler from the process that ends it
            return
        ignore_interrupts()
        signal.signal(signal.SIGCHLD, _do_nothing)  # torch's would report that workers end
        workers = active_children()
        for worker in workers:
            worker.terminate()
        for worker in workers:  # one that sees this process hang up shows a traceback
            worker.join(WORKER_GRACE)
        raise KeyboardInterrupt

    return interrupt


def end_all(processes: list[BaseProcess]) -> None:
    """Interrupt processes, which may be so already, and kill those that stay."""
    ignore_interrupts()
    for process in processes:
        if process.is_alive():
            os.kill(process.pid, signal.SIGINT)
    deadline = time.monotonic() + GRACE
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        process.kill()
        process.join()
