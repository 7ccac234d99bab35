"""What evaluators of several processes bring together: sums, and which images are in them."""

from collections.abc import Hashable, Sequence

import numpy as np
from detectron2.utils import comm


def sum_over_processes(
    sums: Sequence[np.ndarray], seen: set[Hashable], dataset_name: str
) -> tuple[list[np.ndarray], set[Hashable]] | None:
    """What all processes counted, and in which images, on the main one; None on the others.

    Args:
        seen: the images that this process counted, by file or id.

    Raises:
        ValueError: two processes counted the same image, and a sum cannot be taken apart.
    """
    parts = comm.gather((sums, seen))
    if not comm.is_main_process():
        return None
    all_sums, all_seen = zip(*parts)
    together = set().union(*all_seen)
    twice = sum(map(len, all_seen)) - len(together)
    if twice:
        raise ValueError(
            f"{dataset_name}: {twice} images were predicted by two processes, and would count "
            "twice; give each to one process"
        )
    return [np.sum(arrays, axis=0) for arrays in zip(*all_sums)], together
