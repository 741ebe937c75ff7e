"""Traces of several ranks: a folder for each, compared rank by rank, and the ranks of one training with each other."""

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from gradparity.errors import UserError
from gradparity.parity.explain import where
from gradparity.parity.state import Part
from gradparity.parity.verdict import Verdict
from gradparity.trace.file import NAME
from gradparity.trace.record import Event, Trace
from gradparity.trace.report import Difference, as_json, show


@dataclass(frozen=True)
class RankDifferences:
    """Two trainings on several ranks, held against each other."""

    ranks: Sequence[Difference]
    """Of rank 0, rank 1, ..."""
    apart: tuple[int, list[int]] | None
    """The first step after which ranks of the candidate have other parameters than its rank 0, and which; or ``None``.
    Not told where the reference's ranks do the same, as those of a sharded model do."""

    @property
    def parity(self) -> bool:
        """Whether all that was compared is the same on every rank."""
        return all(found.parity for found in self.ranks)

    @property
    def diverging(self) -> list[int]:
        """The ranks that differ first; an exchange of gradients soon makes the others differ as well."""
        places = [place(found.verdict) for found in self.ranks]
        return [rank for rank, place in enumerate(places) if place == min(places) and not self.ranks[rank].parity]


def traces_of(folder: Path) -> list[Path]:
    """The folder of each rank's trace in ``folder``, in order; or ``folder`` itself, if it holds a trace.

    Raises:
        UserError: if there are traces of some ranks, and one before them is missing.
    """
    found = (re.fullmatch(r"rank(0|[1-9][0-9]*)", path.parent.name) for path in folder.glob(f"rank*/{NAME}"))
    ranks = sorted(int(name[1]) for name in found if name)
    if os.path.exists(folder / NAME) or not ranks:  # which, unlike Path.exists, does not raise for a name too long
        return [folder]
    missing = next((n for n in range(ranks[-1]) if n not in ranks), None)
    if missing is not None:
        raise UserError(f"{folder} holds a trace of rank {ranks[-1]} and none of rank {missing}; record all ranks anew")
    return [folder / f"rank{rank}" for rank in ranks]


def paired(reference: Path, candidate: Path) -> list[tuple[Path, Path]]:
    """The traces of each rank in two folders.

    Raises:
        UserError: if there are not as many in both.
    """
    ours, theirs = traces_of(reference), traces_of(candidate)
    if len(ours) != len(theirs):
        raise UserError(
            f"{reference} is of {_ranks(len(ours))} and {candidate} of {_ranks(len(theirs))}; "
            "record both with as many, or name the folders of single ranks, as in FOLDER/rank0"
        )
    return list(zip(ours, theirs, strict=True))


def first_apart(traces: Sequence[Trace]) -> tuple[int, list[int]] | None:
    """The first step after which ranks have other parameters than rank 0, and which ranks; or ``None``."""
    after = [_parameters(trace) for trace in traces]
    for step in sorted(set.intersection(*(set(parameters) for parameters in after))):
        if others := [rank for rank, parameters in enumerate(after) if parameters[step] != after[0][step]]:
            return step, others
    return None


def ranks_apart(traces: Sequence[tuple[Trace, Trace]]) -> tuple[int, list[int]] | None:
    """Where the candidate's ranks part, if it is not where the reference's do."""
    ours, theirs = (first_apart(side) for side in zip(*traces, strict=True))
    return theirs if theirs != ours else None


def _parameters(trace: Trace) -> Mapping[int, object]:
    """Of each step, what the parameters were after it."""
    return {r.step: r.parts.get(Part.PARAMETERS) for r in trace.records if r.event in (Event.STEP, Event.SKIP)}


def as_sentences(found: RankDifferences) -> list[str]:
    """One verdict on all ranks."""
    lines = []
    if found.parity:
        lines.append(f"Identical, bit for bit, on {_ranks(len(found.ranks))}.")
    else:
        names = ", ".join(f"rank {rank}" for rank in found.diverging)
        first = found.ranks[found.diverging[0]].verdict.first
        lines.append(f"{names.capitalize()} diverge{'' if len(found.diverging) > 1 else 's'} first.")
        if first:
            lines[0] = f"{lines[0][:-1]}, {where(first[0])[0].lower()}{where(first[0])[1:]}."
    if found.apart:
        step, ranks = found.apart
        names = ", ".join(f"rank {rank}" for rank in ranks)
        lines.append(f"After step {step} the candidate's ranks are no longer one model: {names} and rank 0 differ.")
    return lines


def json_of(found: RankDifferences) -> dict[str, object]:
    """Everything, for programs."""
    apart = {"step": found.apart[0], "ranks": found.apart[1]} if found.apart else None
    ranks = [as_json(each) for each in found.ranks]
    return {"parity": found.parity, "diverging": found.diverging, "apart": apart, "ranks": ranks}


def show_ranks(found: RankDifferences, console: Console) -> None:
    """Print it, the verdict last."""
    for rank, each in enumerate(found.ranks):
        console.print(f"[bold]Rank {rank}[/]")
        show(each, console)
        console.print()
    for line in as_sentences(found):
        console.print(line, style="bold green" if found.parity else "bold red", soft_wrap=True)


def place(verdict: Verdict) -> tuple[float, ...]:
    """Where a verdict has its first difference, earlier places first; those without one last."""
    if verdict.first is None:
        return (math.inf,)
    at = verdict.first[0]
    return (math.inf if at.step < 0 else at.step, math.inf if at.microbatch is None else at.microbatch, at.phase)


def _ranks(count: int) -> str:
    return f"{count} rank{'s' if count > 1 else ''}"
