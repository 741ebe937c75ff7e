"""Times taken in turn, so that a machine that is slow for a while is slow for everything that is compared."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import quantiles
from typing import TypeAlias

TimedWork: TypeAlias = Callable[[], Mapping[str, float]]
"""Does a piece of work, and returns the seconds of each of its parts, by name."""


@dataclass(frozen=True)
class Spread:
    """The median of some figures, and their lower and upper quartile."""

    median: float
    low: float
    high: float


def spread(figures: Sequence[float]) -> Spread:
    """Return the quartiles of at least two ``figures``.

    >>> spread([1.0, 2.0, 3.0, 4.0, 5.0])
    Spread(median=3.0, low=2.0, high=4.0)
    """
    low, median, high = quantiles(figures, n=4, method="inclusive")
    return Spread(median, low, high)


def in_turn(ways: Sequence[TimedWork], rounds: int, tick: Callable[[], object]) -> dict[str, list[float]]:
    """Return the seconds of each part of each way in each round; the first in one round is the last in the next.

    Args:
        ways: the work to time. Each is called once before, to warm up.
        rounds: number of rounds, at least 2.
        tick: called after each round.
    """
    for way in ways:
        way()
    seconds: dict[str, list[float]] = {}
    for turn in range(rounds):
        first = turn % len(ways)
        for way in (*ways[first:], *ways[:first]):
            for name, one in way().items():
                seconds.setdefault(name, []).append(one)
        tick()
    return seconds


def ratio(seconds: Sequence[float], bases: Sequence[float]) -> Spread:
    """Return the spread of ``seconds`` over ``bases``, divided round by round.

    >>> ratio([2.0, 4.0, 6.0], [1.0, 2.0, 2.0]).median
    2.0
    """
    return spread([one / base for one, base in zip(seconds, bases, strict=True)])


def timed(name: str, work: Callable[[], object]) -> TimedWork:
    """Return a way that does ``work`` and names its seconds ``name``."""
    return lambda: {name: seconds_of(work)}


def seconds_of(work: Callable[[], object]) -> float:
    """Return the seconds that ``work`` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
