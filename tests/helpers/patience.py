"""Tests of time limits, with a limit as short as the machine allows."""

SECONDS = (0.5, 5.0, 50.0)
"""The limits to try: a busy machine may be too slow for the first, and is fast enough for the last."""


def with_some_patience(attempt):
    """Call ``attempt(seconds)`` with longer and longer limits until it passes; only the last one may fail the test."""
    for seconds in SECONDS[:-1]:
        try:
            return attempt(seconds)
        except AssertionError:
            continue
    return attempt(SECONDS[-1])
