"""Find the rank that went wrong when all have stopped: the other ranks only report that they waited."""

import os
import signal
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from gradparity.errors import without_deterministic_form

NOT_THEIRS = tuple(
    f"{folder}{os.sep}"
    for folder in (
        Path(torch.__file__).parent,
        *(Path(__file__).parents[1] / room for room in ("trace", "processes", "check")),
    )
)
"""Folders with code that is not the user's: what it calls, or what watches it."""


@dataclass(frozen=True)
class End:
    """The end of a rank: a result, or one of the other fields."""

    result: Any = None
    raised: str | None = None
    """Type and message of an exception, and where it was raised."""
    waited: str | None = None
    """The line where it waited for another rank in vain."""
    died: int | None = None
    """Its exit code, if it ended without a report."""

    @property
    def wrong(self) -> bool:
        """Return whether there is no result."""
        return self.raised is not None or self.waited is not None or self.died is not None


def ended_by(error: BaseException) -> End:
    """Return what ``error`` says about a rank: that it waited, or what went wrong in it."""
    frames = traceback.extract_tb(error.__traceback__)
    told = next((f for f in reversed(frames) if not f.filename.startswith(NOT_THEIRS)), frames[-1])
    where = f"{Path(told.filename).name}, line {told.lineno} in {told.name}"
    if isinstance(error, dist.DistError) or "gloo/transport" in str(error) or "gloo/rendezvous" in str(error):
        return End(waited=where)
    if sentence := without_deterministic_form(error):
        return End(raised=f"{sentence} ({where})")
    return End(raised=f"{type(error).__name__}: {' '.join(str(error).split())} ({where})")


def innermost(stack: str) -> str:
    """Return where a rank is, from the stack that ``faulthandler`` wrote; empty if it wrote nothing."""
    lines = [
        line.removeprefix('  File "').split('", line ') for line in stack.splitlines() if line.startswith("  File")
    ]
    told = next((line for line in lines if not line[0].startswith(NOT_THEIRS)), lines[0] if lines else None)
    return f"{Path(told[0]).name}, line {told[1]}" if told else ""


def blamed(ends: Mapping[int, End], doing: Mapping[int, str], seconds: float, patience: float) -> str:
    """Return one sentence on the rank that went wrong; empty if all have a result.

    Args:
        ends: the ends of ranks, in the order in which they ended.
        doing: where the other ranks are.
        seconds: time that all ranks had to finish.
        patience: seconds that a rank was to wait for another.
    """
    for rank, end in ends.items():
        if end.died is not None:
            return f"rank {rank} died ({_exit(end.died)}) without a word; the other ranks were stopped"
    for rank, end in ends.items():
        if end.raised is not None:
            return f"rank {rank} raised {end.raised}; the other ranks were stopped"
    waiting = {rank: end.waited for rank, end in ends.items() if end.waited is not None}
    finished = _list([rank for rank in ends if rank not in waiting])
    if waiting and finished:
        rank, where = next(iter(waiting.items()))
        return f"{finished} had finished while rank {rank} still waited at {where}; let all make as many steps"
    if waiting and doing:
        rank, where = next(iter(waiting.items()))
        return f"rank {rank} waited {patience:g} s in vain at {where}; {_places(doing)}"
    if waiting:
        return f"all ranks waited for each other: {_places(waiting)}; let all do the same collectives in the same order"
    if doing:
        return f"{_list(list(doing))} had not finished after {seconds:g} s: {_places(doing)}"
    return ""


def _list(ranks: list[int]) -> str:
    return ", ".join(f"rank {rank}" for rank in sorted(ranks))


def _places(places: Mapping[int, str]) -> str:
    return ", ".join(f"rank {rank} is at {where or 'an unknown place'}" for rank, where in sorted(places.items()))


def _exit(code: int) -> str:
    if -code == signal.SIGABRT:
        return "killed by SIGABRT, as gloo does it where ranks exchange tensors of other sizes"
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
