"""Ground truth that is read while the model predicts."""

from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from typing import Any


class ReadAhead:
    """Called with a name, it starts to read what belongs to it, and what to the next one.

    Decoding a picture takes longer than counting its pixels, and needs neither Python nor the
    device. At most two names' are in memory. What goes wrong shows where the result is asked for.
    There are threads from the first call to `stop`.

    Args:
        names: in the order in which they are usually asked for; any other order is only slower.
        reads: functions of a name, each of which has a thread.
    """

    def __init__(self, names: Sequence[Hashable], *reads: Callable[[Any], Any]) -> None:
        self._follower = dict(pairwise(names))
        self._reads = reads
        self._pool: ThreadPoolExecutor | None = None
        self._ahead: tuple[Hashable, list[Future]] | None = None

    def __call__(self, name: Hashable) -> list[Future]:
        """What each of `reads` gives for `name`."""
        if self._ahead is None or self._ahead[0] != name:
            self._forget()
            self._ahead = name, self._submit(name)
        found = self._ahead[1]
        follower = self._follower.get(name)
        self._ahead = None if follower is None else (follower, self._submit(follower))
        return found

    def stop(self) -> None:
        """Forget what has not been asked for, and let the threads end, at once where they wait."""
        self._forget()
        if self._pool is not None:
            self._pool.shutdown(wait=False)
        self._pool = None

    def _forget(self) -> None:
        for future in self._ahead[1] if self._ahead else ():
            future.cancel()
        self._ahead = None

    def _submit(self, name: Hashable) -> list[Future]:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(len(self._reads))
        return [self._pool.submit(read, name) for read in self._reads]
