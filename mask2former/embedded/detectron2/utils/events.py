"""Scalars, images and histograms of a training run, and the writers that show them."""

import datetime
import json
import logging
import os
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from fvcore.common.history_buffer import HistoryBuffer

from detectron2.utils import _accelerator
from detectron2.utils.file_io import PathManager

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = [
    "CommonMetricPrinter",
    "EventStorage",
    "EventWriter",
    "JSONWriter",
    "TensorboardXWriter",
    "get_event_storage",
    "has_event_storage",
]

_storages: list["EventStorage"] = []
"""The storages that were entered, innermost last."""


def get_event_storage() -> "EventStorage":
    """The storage of the innermost `with EventStorage(...)` around this call."""
    assert has_event_storage(), "get_event_storage() is called outside of `with EventStorage(...)`"
    return _storages[-1]


def has_event_storage() -> bool:
    """Whether this call runs within a `with EventStorage(...)`."""
    return bool(_storages)


class EventStorage:
    """Collects by name and iteration what a run reports, until writers fetch it.

    Args:
        start_iter: the iteration to begin at.
    """

    def __init__(self, start_iter: int = 0) -> None:
        self._histories: dict[str, HistoryBuffer] = {}
        self._smoothing_hints: dict[str, bool] = {}
        self._latest: dict[str, tuple[float, int]] = {}
        self._iter = start_iter
        self._prefix = ""
        self._vis_data: list[tuple] = []  # (name, image, iteration)
        self._histograms: list[dict] = []  # arguments of SummaryWriter.add_histogram_raw

    def __enter__(self) -> "EventStorage":
        _storages.append(self)
        return self

    def __exit__(self, *exception) -> None:
        assert _storages[-1] is self
        _storages.pop()

    @property
    def iter(self) -> int:
        """The current iteration; the trainer sets it."""
        return self._iter

    @iter.setter
    def iter(self, value: int) -> None:
        self._iter = int(value)

    @property
    def iteration(self) -> int:
        """Older name of `iter`."""
        return self._iter

    def step(self) -> None:
        """Go to the next iteration."""
        self._iter += 1

    @contextmanager
    def name_scope(self, name: str) -> Iterator[None]:
        """Within it, scalars are stored as "name/...". Scopes do not nest: the inner one holds."""
        outer, self._prefix = self._prefix, name.rstrip("/") + "/"
        try:
            yield
        finally:
            self._prefix = outer

    def put_scalar(
        self, name: str, value: float, smoothing_hint: bool = True, cur_iter: int | None = None
    ) -> None:
        """Add a number, or a tensor of one number.

        Args:
            smoothing_hint: whether it is noisy, so that writers should show a median over a window.
            cur_iter: the iteration it belongs to, if not the current one.
        """
        name, value = self._prefix + name, float(value)
        iteration = self._iter if cur_iter is None else cur_iter
        known_hint = self._smoothing_hints.setdefault(name, smoothing_hint)
        assert known_hint == smoothing_hint, f"{name} was put with another smoothing_hint before"
        self._histories.setdefault(name, HistoryBuffer()).update(value, iteration)
        self._latest[name] = (value, iteration)

    def put_scalars(
        self, *, smoothing_hint: bool = True, cur_iter: int | None = None, **kwargs: float
    ) -> None:
        """`put_scalar` for each keyword argument."""
        for name, value in kwargs.items():
            self.put_scalar(name, value, smoothing_hint=smoothing_hint, cur_iter=cur_iter)

    def put_image(self, img_name: str, img_tensor: torch.Tensor | np.ndarray) -> None:
        """Keep an image (3,H,W), RGB, float in [0,1] or uint8, for TensorBoard."""
        self._vis_data.append((img_name, img_tensor, self._iter))

    def put_histogram(self, hist_name: str, hist_tensor: torch.Tensor, bins: int = 1000) -> None:
        """Keep a histogram of all values of a float tensor for TensorBoard."""
        low, high = hist_tensor.min().item(), hist_tensor.max().item()
        edges = torch.linspace(low, high, bins + 1)
        self._histograms.append(
            {
                "tag": hist_name,
                "min": low,
                "max": high,
                "num": hist_tensor.numel(),
                "sum": hist_tensor.sum().item(),
                "sum_squares": hist_tensor.square().sum().item(),
                "bucket_limits": edges[1:].tolist(),
                "bucket_counts": torch.histc(hist_tensor, bins=bins).tolist(),
                "global_step": self._iter,
            }
        )

    def history(self, name: str) -> HistoryBuffer:
        """All values of a scalar.

        Raises:
            KeyError: no such scalar was put.
        """
        if name not in self._histories:
            raise KeyError(f"no scalar named {name} was put")
        return self._histories[name]

    def histories(self) -> dict[str, HistoryBuffer]:
        """All values of all scalars."""
        return self._histories

    def latest(self) -> dict[str, tuple[float, int]]:
        """The last value of each scalar and its iteration."""
        return self._latest

    def latest_with_smoothing_hint(self, window_size: int = 20) -> dict[str, tuple[float, int]]:
        """As `latest`; noisy ones are a median over the last `window_size` iterations."""
        return {
            name: (self._median(name, window_size) if self._smoothing_hints[name] else value, at)
            for name, (value, at) in self._latest.items()
        }

    def count_samples(self, name: str, window_size: int = 20) -> int:
        """How many values of a scalar are from its last `window_size` iterations."""
        values = self._histories[name].values()
        first = values[-1][1] - window_size + 1
        num_older = next((i for i, (_, at) in enumerate(reversed(values)) if at < first), None)
        return len(values) if num_older is None else num_older

    def _median(self, name: str, window_size: int) -> float:
        return self._histories[name].median(self.count_samples(name, window_size))

    def smoothing_hints(self) -> dict[str, bool]:
        """Which scalars are noisy."""
        return self._smoothing_hints

    def clear_images(self) -> None:
        """Forget the images; for the writer that has written them."""
        self._vis_data = []

    def clear_histograms(self) -> None:
        """Forget the histograms; for the writer that has written them."""
        self._histograms = []


class EventWriter:
    """Fetches from the current `EventStorage` and writes somewhere."""

    def write(self) -> None:
        """Write what is new."""
        raise NotImplementedError(f"{type(self).__name__} has to define write()")

    def close(self) -> None:
        """Write no more."""


class JSONWriter(EventWriter):
    """Appends one JSON object a line: the scalars of one iteration and "iteration".

    Args:
        window_size: of the median over noisy scalars, in iterations.
    """

    def __init__(self, json_file: str, window_size: int = 20) -> None:
        self._file = PathManager.open(json_file, "a")
        self._window_size = window_size
        self._last_write = -1

    def write(self) -> None:
        lines: dict[int, dict] = defaultdict(dict)
        latest = get_event_storage().latest_with_smoothing_hint(self._window_size)
        for name, (value, iteration) in latest.items():
            if iteration > self._last_write:
                lines[iteration][name] = value
        for iteration, scalars in sorted(lines.items()):
            self._file.write(json.dumps({**scalars, "iteration": iteration}, sort_keys=True) + "\n")
        self._last_write = max(lines, default=self._last_write)
        self._file.flush()
        os.fsync(self._file.fileno())  # the curve up to a crash is what one wants to see

    def close(self) -> None:
        self._file.close()


class TensorboardXWriter(EventWriter):
    """Writes TensorBoard events.

    Args:
        window_size: of the median over noisy scalars, in iterations.
        kwargs: further arguments of torch.utils.tensorboard.SummaryWriter.
    """

    def __init__(self, log_dir: str, window_size: int = 20, **kwargs) -> None:
        self._window_size = window_size
        self._arguments = {"log_dir": log_dir, **kwargs}
        self._last_write = -1

    @cached_property
    def _writer(self) -> "SummaryWriter":
        # Made on the first write: it opens a file, and its import takes seconds.
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(**self._arguments)

    def write(self) -> None:
        storage = get_event_storage()
        last_write = self._last_write
        latest = storage.latest_with_smoothing_hint(self._window_size)
        for name, (value, iteration) in latest.items():
            if iteration > self._last_write:
                self._writer.add_scalar(name, value, iteration)
                last_write = max(last_write, iteration)
        self._last_write = last_write
        for name, image, iteration in storage._vis_data:
            self._writer.add_image(name, image, iteration)
        storage.clear_images()
        for histogram in storage._histograms:
            self._writer.add_histogram_raw(**histogram)
        storage.clear_histograms()

    def close(self) -> None:
        if "_writer" in self.__dict__:
            self._writer.close()


class CommonMetricPrinter(EventWriter):
    """Logs a line: ETA, iteration, losses, metrics, times, learning rate, peak memory.

    Args:
        max_iter: for the ETA; without it none is printed.
        window_size: of the median over losses, in iterations.
    """

    def __init__(self, max_iter: int | None = None, window_size: int = 20) -> None:
        self.logger = logging.getLogger(__name__)
        self._max_iter = max_iter
        self._window_size = window_size
        self._last_write: tuple[int, float] | None = None  # iteration, time

    def write(self) -> None:
        storage = get_event_storage()
        if storage.iter == self._max_iter:  # only progress is shown, and there is none any more
            return
        eta = self._eta(storage)
        histories = storage.histories()
        parts = [f"eta: {eta}"] if eta else []
        parts.append(f"iter: {storage.iter}")
        for kind in ("loss", "[metric]"):
            names = (name for name in histories if kind in name)
            parts += [f"{n}: {storage._median(n, self._window_size):.4g}" for n in names]
        if "time" in histories:
            times = histories["time"]
            parts += [f"time: {times.global_avg():.4f}", f"last_time: {times.latest():.4f}"]
        if "data_time" in histories:
            times = histories["data_time"]
            average = times.avg(storage.count_samples("data_time", self._window_size))
            parts += [f"data_time: {average:.4f}", f"last_data_time: {times.latest():.4f}"]
        parts.append(f"lr: {histories['lr'].latest():.5g}" if "lr" in histories else "lr: N/A")
        read_memory = getattr(_accelerator.module(), "max_memory_allocated", None)
        if read_memory is not None:
            parts.append(f"max_mem: {read_memory() / 1024**2:.0f}M")
        self.logger.info(" %s", "  ".join(parts))

    def _eta(self, storage: EventStorage) -> str | None:
        if self._max_iter is None:
            return None
        if "time" in storage.histories():
            seconds = storage.history("time").median(1000)
        else:  # nobody times iterations: from the time between two calls
            last, self._last_write = self._last_write, (storage.iter, time.perf_counter())
            if last is None or last[0] == storage.iter:
                return None
            seconds = (self._last_write[1] - last[1]) / (storage.iter - last[0])
        seconds *= self._max_iter - storage.iter - 1
        if "time" in storage.histories():
            storage.put_scalar("eta_seconds", seconds, smoothing_hint=False)
        return str(datetime.timedelta(seconds=int(seconds)))
