"""The most memory that a piece of work holds at once, to the byte."""

import os
from collections.abc import Callable

from torch.profiler import ProfilerActivity, profile


def peak_bytes(work: Callable[[], object]) -> int:
    """Return the most bytes of tensors on the CPU that ``work`` holds at once, beyond those held before.

    Counted from the allocations themselves (https://docs.pytorch.org/docs/stable/profiler.html, ``profile_memory``), so
    unlike a process's resident size it is the same in every run.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else the profiler reports its start and stop on stderr
    # Without acc_events, some releases warn that events of earlier cycles are dropped; there is one cycle.
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        work()
    assert profiler.profiler is not None
    assert profiler.profiler.kineto_results is not None
    held = most = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most
