"""User errors found while a sample is loaded, carried out of a loader's worker unchanged."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any


class SampleError(ValueError):
    """A file of the dataset that cannot be used; the message names it and says what to do."""


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
    """A loader of lists of samples that raises the SampleErrors found among them."""

    def __init__(self, loader: Iterable[list]):
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[list]:
        for batch in self.loader:
            for sample in batch:
                if isinstance(sample, SampleError):
                    raise sample
            yield batch
