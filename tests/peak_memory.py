"""How much memory something needs, counted rather than measured."""

import itertools

import torch


def peak_memory(run):
    """What `run` gives, and the most bytes that were allocated at a time meanwhile."""
    with torch.profiler.profile(profile_memory=True) as profiler:
        result = run()
    events = profiler.profiler.kineto_results.events()
    held = itertools.accumulate(e.nbytes() for e in events if e.name() == "[memory]")
    return result, max(held)
