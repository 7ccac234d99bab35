"""User errors found while a sample is loaded, carried out of a loader's worker unchanged."""

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from mask2former.data.sharing import NoSharedMemory, received
from mask2former.data.waiting import patiently

logger = logging.getLogger(__name__)


class SampleError(ValueError):
    """A file of the dataset that cannot be used; the message names it and says what to do."""


class Replaced(NamedTuple):
    """What takes the place of a sample that cannot be used."""

    sample: dict | None  # None: there is no other
    faults: list[SampleError]  # of the sample, and of those that were tried before this one


class ErrorAsValue:
    """Calls `function`, and returns its SampleError instead of raising it.

    torch wraps what a worker raises into the worker's traceback, under which the sentence that
    the user needs is lost. As a value it comes through whole; `PlainErrors` raises it.
    """

    def __init__(self, function: Callable[..., Any]):
        self.function = function

    def __call__(self, *args: Any) -> Any:
        try:
            return self.function(*args)
        except SampleError as error:
            return error


class PlainErrors(Iterable):
    """A loader of lists of samples that raises the errors found among, or instead of, them.

    Up to `max_bad` different SampleErrors are only logged if another sample came with them, as
    `Replaced`. Of a sample that has been logged nothing more is said when it comes again. While a
    batch has to be waited for, the log says so now and then.
    """

    def __init__(self, loader: Iterable[list], max_bad: int = 0):
        self.loader = loader
        self.max_bad = max_bad
        self.faults: list[str] = []  # all that were found, each once

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[list]:
        num_told = len(self.faults)
        for number, batch in enumerate(patiently(received(self.loader))):
            if isinstance(batch, NoSharedMemory):
                raise batch
            usable = [self._usable(sample) for sample in batch]
            # A training reads the first batch before it opens its log.
            while number > 0 and num_told < len(self.faults):
                logger.warning(
                    "%s; another sample takes its place (broken sample %d of at most %d: "
                    "DATALOADER.MAX_BAD_SAMPLES)",
                    *(self.faults[num_told], num_told + 1, self.max_bad),
                )
                num_told += 1
            yield usable

    def _usable(self, sample: Any) -> Any:
        if isinstance(sample, SampleError):
            sample = Replaced(None, [sample])
        if not isinstance(sample, Replaced):
            return sample
        for fault in sample.faults:
            if str(fault) not in self.faults:
                self.faults.append(str(fault))
                self._check_number(fault)
        if sample.sample is None:
            raise SampleError(f"{sample.faults[-1]}; there is no sample to take its place")
        return sample.sample

    def _check_number(self, last: SampleError) -> None:
        if self.max_bad == 0:
            raise last
        if len(self.faults) > self.max_bad:
            raise SampleError(
                f"{last}; this is broken sample {len(self.faults)}, and "
                f"DATALOADER.MAX_BAD_SAMPLES={self.max_bad} allows no more"
            )
