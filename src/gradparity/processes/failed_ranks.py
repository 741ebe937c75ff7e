"""Find the rank that failed first, after all have stopped: the other ranks report only that they waited."""

import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from gradparity.errors import without_deterministic_form
from gradparity.processes.user_frames import Frame, frames_of_dump, frames_of_exception, innermost

_NOT_THEIRS = tuple(
    f"{folder}{os.sep}"
    for folder in (
        Path(torch.__file__).parent,
        *(Path(__file__).parents[1] / room for room in ("trace", "processes", "check")),
    )
)
"""Folders with code that a rank's own code calls, or that watches it."""

_GLOO = ("gloo/transport", "gloo/rendezvous")
"""Source folders that gloo names in its errors about a lost rank; torch gives these errors no type of their own."""


@dataclass(frozen=True)
class RankEnd:
    """The end of a rank: a result, or one of the other fields."""

    result: Any = None
    raised: str | None = None
    """Type and message of an exception, and the line that raised it."""
    waited: str | None = None
    """The line where it waited for another rank in vain."""
    died: int | None = None
    """Its exit code, if it ended without a report."""

    @property
    def failed(self) -> bool:
        """Return whether there is no result."""
        return self.raised is not None or self.waited is not None or self.died is not None


def end_of_rank(error: BaseException) -> RankEnd:
    """Return the end that ``error`` means for a rank: it waited in vain, or it failed itself."""
    where = _place(frames_of_exception(error))
    if isinstance(error, dist.DistError) or any(folder in str(error) for folder in _GLOO):
        return RankEnd(waited=where)
    if sentence := without_deterministic_form(error):
        return RankEnd(raised=f"{sentence} ({where})")
    return RankEnd(raised=f"{type(error).__name__}: {' '.join(str(error).split())} ({where})")


def place_in_dump(dump: str) -> str:
    """Return the line that a rank is at, from the stack that ``faulthandler`` wrote; empty if it wrote nothing."""
    return _place(frames_of_dump(dump))


def diagnose_failure(ends: Mapping[int, RankEnd], running: Mapping[int, str], seconds: float, patience: float) -> str:
    """Return one sentence on the rank that failed; empty if all have a result.

    Args:
        ends: the ends of ranks, in the order in which they ended.
        running: the line that each other rank is at.
        seconds: time that all ranks had to finish.
        patience: seconds that a rank was to wait for another.
    """
    for rank, end in ends.items():
        if end.died is not None:
            return f"rank {rank} died ({_cause(end.died)}) without an exception; the other ranks were stopped"
    for rank, end in ends.items():
        if end.raised is not None:
            return f"rank {rank} raised {end.raised}; the other ranks were stopped"
    waiting = {rank: end.waited for rank, end in ends.items() if end.waited is not None}
    finished = _join([rank for rank in ends if rank not in waiting])
    if waiting and finished:
        rank, where = next(iter(waiting.items()))
        return f"{finished} had finished while rank {rank} still waited at {where}; make as many steps on every rank"
    if waiting and running:
        rank, where = next(iter(waiting.items()))
        return f"rank {rank} waited {patience:g} s for another rank at {where}; {_places(running)}"
    if waiting:
        return (
            f"all ranks waited for each other: {_places(waiting)}; call the same collectives in the same order on all"
        )
    if running:
        return f"{_join(list(running))} had not finished after {seconds:g} s: {_places(running)}"
    return ""


def _place(frames: Sequence[Frame]) -> str:
    """Return the innermost frame of the user; without one, of the code that a rank runs, or any."""
    frame = innermost(frames) or innermost(frames, _NOT_THEIRS) or next(iter(frames), None)
    return str(frame) if frame else ""


def _join(ranks: list[int]) -> str:
    return ", ".join(f"rank {rank}" for rank in sorted(ranks))


def _places(places: Mapping[int, str]) -> str:
    return ", ".join(f"rank {rank} is at {where or 'an unknown place'}" for rank, where in sorted(places.items()))


def _cause(code: int) -> str:
    if -code == signal.SIGABRT:
        return "killed by SIGABRT, which gloo sends if ranks exchange tensors of different sizes"
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
