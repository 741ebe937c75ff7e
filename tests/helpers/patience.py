"""Waits for loops that never end: as short as the machine allows, since only a pass may come early."""

SECONDS = (0.5, 5.0, 50.0)
"""A busy machine may not get to the place in question in the first, and gets there in the last."""


def with_some_patience(attempt):
    """Let ``attempt(seconds)`` pass, with as little patience as it needs; what it asserts with the most, counts."""
    for seconds in SECONDS[:-1]:
        try:
            return attempt(seconds)
        except AssertionError:
            continue
    return attempt(SECONDS[-1])
