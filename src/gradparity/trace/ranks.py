"""Traces of several ranks, one folder each.

Two trainings are compared rank by rank. The ranks of one training are also compared with each other.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from gradparity.errors import UserError
from gradparity.parity.explain_difference import lowered, place_in_words
from gradparity.parity.state import Part
from gradparity.parity.verdict import Verdict
from gradparity.trace.events import Event, Trace
from gradparity.trace.report import TraceDifference, difference_as_json, print_difference
from gradparity.trace.trace_file import TRACE_FILE


@dataclass(frozen=True)
class RankDifferences:
    """The result of comparing two trainings on several ranks."""

    ranks: Sequence[TraceDifference]
    """The results for rank 0, rank 1, ..."""
    apart: tuple[int, list[int]] | None
    """The first step after which ranks of the candidate differ from its rank 0 in parameters, and those ranks.
    ``None`` if there is none, or if the reference's ranks differ in the same way, as those of a sharded model do."""

    @property
    def parity(self) -> bool:
        """Return whether everything that was compared is the same on every rank."""
        return all(found.parity for found in self.ranks)

    @property
    def diverging(self) -> list[int]:
        """Return the ranks that differ first, or that have no verdict if none differs.

        An exchange of gradients soon makes the other ranks differ as well.
        """
        without = [rank for rank, found in enumerate(self.ranks) if not found.parity]
        return first_to_differ([found.verdict for found in self.ranks]) or without


def traces_of(folder: Path) -> list[Path]:
    """Return the folder of each rank's trace in ``folder``, in order.

    Return ``folder`` itself if it holds a trace, or if it holds no rank's trace.

    Raises:
        UserError: if there is a trace of one rank, and the trace of an earlier rank is missing.
    """
    found = (re.fullmatch(r"rank(0|[1-9][0-9]*)", path.parent.name) for path in folder.glob(f"rank*/{TRACE_FILE}"))
    ranks = sorted(int(name[1]) for name in found if name)
    if os.path.exists(folder / TRACE_FILE) or not ranks:  # unlike Path.exists, it does not raise for a name too long
        return [folder]
    missing = next((n for n in range(ranks[-1]) if n not in ranks), None)
    if missing is not None:
        raise UserError(f"{folder} holds a trace of rank {ranks[-1]} and none of rank {missing}; record all ranks anew")
    return [folder / f"rank{rank}" for rank in ranks]


def paired(reference: Path, candidate: Path) -> list[tuple[Path, Path]]:
    """Return the traces of each rank in two folders, as pairs.

    Raises:
        UserError: if the two folders hold different numbers of traces.
    """
    ours, theirs = traces_of(reference), traces_of(candidate)
    if len(ours) != len(theirs):
        raise UserError(
            f"{reference} is of {_ranks(len(ours))} and {candidate} of {_ranks(len(theirs))}; "
            "record both with as many, or name the folders of single ranks, as in FOLDER/rank0"
        )
    return list(zip(ours, theirs, strict=True))


def first_apart(traces: Sequence[Trace]) -> tuple[int, list[int]] | None:
    """Return the first step after which ranks differ from rank 0 in parameters, and those ranks; or ``None``."""
    after = [_parameters(trace) for trace in traces]
    for step in sorted(set.intersection(*(set(parameters) for parameters in after))):
        if others := [rank for rank, parameters in enumerate(after) if parameters[step] != after[0][step]]:
            return step, others
    return None


def ranks_apart(traces: Sequence[tuple[Trace, Trace]]) -> tuple[int, list[int]] | None:
    """Return the step and ranks where the candidate's ranks diverge; ``None`` if the reference's do the same."""
    ours, theirs = (first_apart(side) for side in zip(*traces, strict=True))
    return theirs if theirs != ours else None


def _parameters(trace: Trace) -> Mapping[int, object]:
    """Return the parameters after each step."""
    return {r.step: r.parts.get(Part.PARAMETERS) for r in trace.records if r.event in (Event.STEP, Event.SKIP)}


def as_sentences(found: RankDifferences) -> list[str]:
    """Return one verdict on all ranks, as sentences."""
    lines = []
    if found.parity:
        lines.append(f"Identical, bit for bit, on {_ranks(len(found.ranks))}.")
    else:
        names = ", ".join(f"rank {rank}" for rank in found.diverging)
        first = found.ranks[found.diverging[0]].verdict.first
        verb = f"diverge{'' if len(found.diverging) > 1 else 's'} first"
        place = place_in_words(first[0].place) if first else ""
        lines.append(f"{names.capitalize()} {verb}, {lowered(place)}." if first else f"No verdict on {names}.")
    if found.apart:
        step, ranks = found.apart
        names = ", ".join(f"rank {rank}" for rank in ranks)
        lines.append(f"After step {step} the candidate's ranks are no longer one model: {names} and rank 0 differ.")
    return lines


def rank_differences_as_json(found: RankDifferences) -> dict[str, object]:
    """Return everything as a dict for JSON."""
    apart = {"step": found.apart[0], "ranks": found.apart[1]} if found.apart else None
    ranks = [difference_as_json(each) for each in found.ranks]
    return {"parity": found.parity, "diverging": found.diverging, "apart": apart, "ranks": ranks}


def print_rank_differences(found: RankDifferences, console: Console) -> None:
    """Print the result of each rank, then the verdict."""
    for rank, each in enumerate(found.ranks):
        console.print(f"[bold]Rank {rank}[/]")
        print_difference(each, console)
        console.print()
    for line in as_sentences(found):
        console.print(line, style="bold green" if found.parity else "bold red", soft_wrap=True)


def first_to_differ(verdicts: Sequence[Verdict]) -> list[int]:
    """Return the ranks whose first difference is at the earliest place of all; empty if no rank differs."""
    places = [verdict.first[0].place if verdict.first else None for verdict in verdicts]
    earliest = min((place for place in places if place), default=None)
    return [rank for rank, place in enumerate(places) if place and place == earliest]


def _ranks(count: int) -> str:
    return f"{count} rank{'s' if count > 1 else ''}"
