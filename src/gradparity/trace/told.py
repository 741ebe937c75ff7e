"""What came of two traces, for people and for programs."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby

from rich.console import Console

from gradparity import report
from gradparity.parity.lockstep import Comparison
from gradparity.parity.metrics import finite
from gradparity.parity.verdict import Verdict
from gradparity.trace.diff import compare_traces, first_other_draw, first_other_events
from gradparity.trace.file import lost
from gradparity.trace.record import Trace


@dataclass(frozen=True)
class Difference:
    """Two traces, held against each other."""

    verdict: Verdict
    events: tuple[int, list[str], list[str]] | None
    """The first step in which the loops did not do the same in the same order, and what each did."""
    draws: int | None
    """The first step in which torch's random stream was in another state."""
    doubts: list[str]
    """What makes the verdict say less than it seems to."""

    @property
    def parity(self) -> bool:
        """Whether all that was compared is the same."""
        return self.verdict.parity


def difference(
    reference: Trace, candidate: Trace, watching: Callable[[Comparison], None] = lambda _: None
) -> Difference:
    """Hold two traces against each other; ``watching`` is told of each comparison as it is made."""
    verdict = Verdict()
    for found in compare_traces(reference, candidate):
        verdict.add(found)
        watching(found)
    doubts = [
        f"the {name}'s recording was cut off; it is compared as far as it goes"
        for name, trace in (("reference", reference), ("candidate", candidate))
        if not trace.complete
    ]
    doubts += [
        f"of the {name}'s files of kept tensors {count} cannot be read; what they held is compared by hash and norm"
        for name, trace in (("reference", reference), ("candidate", candidate))
        if (count := lost(trace))
    ]
    doubts += [
        f"{key} is {reference.about.get(key)} in the reference and {candidate.about.get(key)} in the candidate, "
        "which may round differently"
        for key in sorted(reference.about.keys() | candidate.about.keys())
        if reference.about.get(key) != candidate.about.get(key)
    ]
    events, draws = first_other_events(reference, candidate), first_other_draw(reference, candidate)
    return Difference(verdict, events, draws, doubts)


def sentences(found: Difference) -> list[str]:
    """The verdict, what the first difference looks like, and what else is worth knowing."""
    lines = [report.headline(found.verdict)]
    if found.verdict.explanation:
        lines += found.verdict.explanation.splitlines()
    if found.events:
        step, ours, theirs = found.events
        lines.append(f"In step {step} the loops do other things, or in another order:")
        lines.append(f"  reference  {in_a_row(ours)}")
        lines.append(f"  candidate  {in_a_row(theirs)}")
    if found.draws is not None and not found.parity:
        lines.append(f"From step {found.draws} on they draw other random numbers.")
    elif found.draws is not None:
        lines.append(f"Other random numbers were drawn from step {found.draws} on, without any effect here.")
    return lines + [f"Note: {doubt}." for doubt in found.doubts]


def in_a_row(events: Sequence[str]) -> str:
    """Events in their order, repetitions counted.

    >>> in_a_row(["forward", "accumulated", "forward", "accumulated", "ready", "step"])
    '2 × (forward → accumulated) → ready → step'
    """
    pairs = [" → ".join(pair) if len(pair) > 1 else pair[0] for pair in _paired(events)]
    runs = ((thing, len(list(again))) for thing, again in groupby(pairs))
    return " → ".join(thing if n == 1 else f"{n} × ({thing})" for thing, n in runs) or "nothing"


def _paired(events: Sequence[str]) -> list[list[str]]:
    pairs: list[list[str]] = []
    for event in events:
        if event == "accumulated" and pairs and pairs[-1] == ["forward"]:
            pairs[-1].append(event)
        else:
            pairs.append([event])
    return pairs


def as_json(found: Difference) -> dict[str, object]:
    """Everything, for programs."""
    first = None
    if found.verdict.first:
        comparison, mismatch = found.verdict.first
        first = {
            "step": comparison.step,
            "phase": comparison.phase.name.lower(),
            "microbatch": comparison.microbatch,
            **asdict(mismatch),
            "figures": finite(mismatch.figures) if mismatch.figures else None,
        }
    step, ours, theirs = found.events or (None, [], [])
    return {
        "parity": found.parity,
        "steps": found.verdict.steps,
        "numbers": found.verdict.numbers,
        "first": first,
        "explanation": found.verdict.explanation,
        "events": {"step": step, "reference": ours, "candidate": theirs} if found.events else None,
        "random_numbers_differ_from_step": found.draws,
        "doubts": found.doubts,
        "cells": [
            {"phase": phase.name.lower(), "part": part, **asdict(cell)}
            for (phase, part), cell in found.verdict.cells.items()
            if cell.compared
        ],
    }


def show(found: Difference, console: Console) -> None:
    """Print it."""
    console.print(report.table(found.verdict))
    first, *rest = sentences(found)
    console.print(first, style="bold green" if found.parity else "bold red", soft_wrap=True)
    for line in rest:
        console.print(line, soft_wrap=True, markup=False)
