"""Times taken in turn, so that whatever slows a machine down for a while slows down all that is compared."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import quantiles
from typing import Any, TypeAlias

Timed: TypeAlias = Callable[[], float]
"""Does a piece of work, and returns the seconds that it took."""


@dataclass(frozen=True)
class Spread:
    """The middle of some figures, and the quarter below and above which a quarter of them lie."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f} to {self.high:.3f})"


def spread(figures: Sequence[float]) -> Spread:
    """The quartiles of at least two ``figures``.

    >>> spread([1.0, 2.0, 3.0, 4.0, 5.0])
    Spread(median=3.0, low=2.0, high=4.0)
    """
    low, median, high = quantiles(figures, n=4, method="inclusive")
    return Spread(median, low, high)


def in_turn(ways: Mapping[str, Timed], rounds: int, tick: Callable[[], object]) -> dict[str, list[float]]:
    """The seconds of each way in each round; the first in one round is the last in the next.

    Args:
        ways: what is timed, by name. Each is called once before, to warm up.
        rounds: how often, at least 2.
        tick: called after each round.
    """
    names = list(ways)
    for way in ways.values():
        way()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        first = turn % len(names)
        for name in (*names[first:], *names[:first]):
            seconds[name].append(ways[name]())
        tick()
    return seconds


def ratio(seconds: Sequence[float], bases: Sequence[float]) -> Spread:
    """How many times as long as the base it took, round by round."""
    return spread([one / base for one, base in zip(seconds, bases, strict=True)])


def timed(work: Callable[..., object], *args: Any) -> Timed:
    """``work`` with its seconds."""

    def call() -> float:
        began = time.perf_counter()
        work(*args)
        return time.perf_counter() - began

    return call
