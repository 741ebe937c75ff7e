"""The processes that this one has started."""

from contextlib import suppress


def ended_children() -> float:
    """Return the processor time of all child processes that have ended, in seconds; 0 where it is not known."""
    with suppress(ImportError):  # Windows
        import resource

        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime
    return 0.0
