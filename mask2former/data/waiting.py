"""Says that a run stands still because its data do not come."""

import logging
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

logger = logging.getLogger(__name__)

PERIOD = 30.0  # seconds

_Batch = TypeVar("_Batch")


def patiently(batches: Iterable[_Batch], period: float = PERIOD) -> Iterator[_Batch]:
    """`batches`, with a warning every `period` seconds for which one of them has to be waited for.

    Nobody can tell a slow disk from a dead one, and a read that hangs cannot be broken off, so it
    is waited for without end; of several processes the others give up at some time.
    """
    iterator = iter(batches)  # where there are workers, it starts them: they are to have no thread
    watch = _Watch(period)
    watch.start()
    try:
        while True:
            watch.since = time.monotonic()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            finally:
                watch.since = None
            yield batch
    finally:
        watch.ended.set()


class _Watch(threading.Thread):
    """Looks every `period` seconds whether something has been waited for that long.

    It logs while the main thread waits, so that it holds no lock when that one starts processes.
    """

    def __init__(self, period: float):
        super().__init__(name="data watch", daemon=True)
        self.period = period
        self.since: float | None = None
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(self.period):
            since = self.since
            waited = 0.0 if since is None else time.monotonic() - since
            if waited >= self.period:
                logger.warning(
                    "Waiting for data for %.0f s; if this does not end, look whether the disk or "
                    "the network that holds the pictures still answers",
                    waited,
                )
