"""Where datasets lie, and how many files are made in parallel."""

import contextlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

from tqdm import tqdm

_Job = TypeVar("_Job")
_Result = TypeVar("_Result")


def datasets_root() -> str:
    """The directory of all datasets: DETECTRON2_DATASETS, else datasets/."""
    return os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets"))


def for_each(
    function: Callable[[_Job], _Result],
    jobs: Sequence[_Job],
    title: str,
    *,
    is_done: Callable[[_Job], bool] = lambda job: False,
    num_workers: int = 1,
    show_progress: bool = True,
) -> list[_Result]:
    """What `function` returns for each of `jobs` that is to be done, in order, with a progress bar.

    Args:
        function: of the top level of a module, so that other processes find it.
        is_done: whether an earlier run has left nothing to do for a job.
        num_workers: processes; 1 works in this one. The first error ends the rest.
    """
    total = len(jobs)
    jobs = [job for job in jobs if not is_done(job)]
    kept = total - len(jobs)
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(
            tqdm(total=total, initial=kept, desc=title, unit="file", disable=not show_progress)
        )
        if num_workers > 1 and len(jobs) > 1:
            pool = stack.enter_context(ProcessPoolExecutor(num_workers))
            stack.callback(pool.shutdown, cancel_futures=True)
            results = pool.map(function, jobs, chunksize=4)
        else:
            results = map(function, jobs)
        found = []
        for result in results:
            found.append(result)
            progress.update()
    return found
