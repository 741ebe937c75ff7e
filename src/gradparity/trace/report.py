"""Report on the comparison of two traces, as text for people and as JSON for programs."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from itertools import groupby

from rich.console import Console

from gradparity.parity import report
from gradparity.parity.explain_difference import lowered
from gradparity.parity.explanation_kinds import Meaning
from gradparity.parity.figures import finite
from gradparity.parity.lockstep import Comparison
from gradparity.parity.verdict import Verdict, verdict_of
from gradparity.trace.diff import compare_traces, count_not_comparable
from gradparity.trace.events import Trace
from gradparity.trace.events_compared import first_other_draw, first_other_events
from gradparity.trace.matching_names import named_alike, unmatched
from gradparity.trace.same_updates import Updates, updates
from gradparity.trace.trace_file import missing_tensor_files
from gradparity.trace.until_difference import count_steps


class TraceOutcome(StrEnum):
    """The verdict on two traces."""

    IDENTICAL = "identical"
    OTHER_CALLS = "identical updates, other calls"
    """All values are the same bits, but the loops make different calls, or make them in a different order."""
    SAME_UPDATES = "same updates"
    """After every step the parameters are the same bits, but something else differs."""
    DIFFERENT = "different"
    NOTHING = "nothing compared"
    NOT_COMPARABLE = "not comparable"
    """Nothing that can be compared differs, but some values were hashed on a GPU in one trace only."""


@dataclass(frozen=True)
class TraceDifference:
    """The result of comparing two traces."""

    verdict: Verdict
    events: tuple[int, list[str], list[str]] | None
    """The first step in which the calls of the loops, or their order, differ, with the calls of each loop."""
    draws: int | None
    """The first step in which torch's random stream was in a different state."""
    doubts: list[str]
    """Reasons why the verdict covers less than it seems to, one sentence each."""
    updates: Updates
    """The values that are the same bits after every step."""
    steps: tuple[int, int] = (0, 0)
    """The number of steps of each loop."""
    unmatched: str = ""
    """A sentence on parameters whose names occur in only one of the traces; empty if there are none."""
    not_comparable: int = 0
    """The number of values that were hashed on a GPU in one trace and on the CPU in the other."""

    @property
    def parity(self) -> bool:
        """Return whether everything is the same."""
        return self.verdict.parity and not self.not_comparable

    @property
    def outcome(self) -> TraceOutcome:
        """Return the verdict in a few words."""
        if self.parity:
            return TraceOutcome.OTHER_CALLS if self.events else TraceOutcome.IDENTICAL
        if self.not_comparable and not self.verdict.first:
            return TraceOutcome.NOT_COMPARABLE
        if not self.verdict.steps and not self.verdict.first:
            return TraceOutcome.NOTHING
        return TraceOutcome.SAME_UPDATES if self.updates.same else TraceOutcome.DIFFERENT


def trace_difference(
    reference: Trace,
    candidate: Trace,
    watching: Callable[[Comparison], None] = lambda _: None,
    verdict: Verdict | None = None,
) -> TraceDifference:
    """Compare two traces, add each comparison to ``verdict``, if it is given, and call ``watching`` with it."""
    reference, candidate = named_alike(reference, candidate)
    return TraceDifference(
        verdict_of(compare_traces(reference, candidate), watching, verdict=verdict),
        first_other_events(reference, candidate),
        first_other_draw(reference, candidate),
        doubts(reference, candidate),
        updates(reference, candidate),
        (count_steps(reference), count_steps(candidate)),
        unmatched(reference, candidate),
        count_not_comparable(reference, candidate),
    )


def doubts(reference: Trace, candidate: Trace) -> list[str]:
    """Return reasons why a verdict on two traces covers less than it seems to, one sentence each."""
    both = (("reference", reference), ("candidate", candidate))
    notes = [
        f"the {name}'s recording was cut off; it is compared as far as it goes"
        for name, trace in both
        if not trace.complete
    ]
    notes += [
        f"{count} of the {name}'s tensor files cannot be read; these tensors are compared by hash and norm"
        for name, trace in both
        if (count := missing_tensor_files(trace))
    ]
    notes += [f"the {name}'s recording lacks something: {note}" for name, trace in both for note in trace.notes]
    notes += [
        f"{key} is {reference.about.get(key)} in the reference and {candidate.about.get(key)} in the candidate, "
        "which may round differently"
        for key in sorted(reference.about.keys() | candidate.about.keys())
        if reference.about.get(key) != candidate.about.get(key)
    ]
    return notes


def _headline(found: TraceDifference) -> str:
    """Return the verdict in one sentence."""
    match found.outcome:
        case TraceOutcome.OTHER_CALLS:
            verdict = found.verdict
            compared = f"{report.plural(verdict.steps, 'step')}, {verdict.numbers:,} numbers compared"
            return f"Identical updates, bit for bit: {compared}. The loops make different calls on the way."
        case TraceOutcome.SAME_UPDATES:
            return str(found.updates)
        case TraceOutcome.NOT_COMPARABLE:
            return f"Not comparable: {_two_hashes(found)}; record both on the same kind of device."
        case _:
            return report.verdict_headline(found.verdict)


def _two_hashes(found: TraceDifference) -> str:
    """Return the number of values that two hashes stand for, in words."""
    return (
        f"{report.plural(found.not_comparable, 'value')} hashed on a GPU in one recording and on the CPU in the other"
    )


def sentences(found: TraceDifference) -> list[str]:
    """Return the verdict, the first difference, and further notes, as lines of text."""
    lines = [_headline(found)]
    if found.unmatched:
        lines.insert(0, found.unmatched)
    if found.verdict.explanation:
        same = found.outcome == TraceOutcome.SAME_UPDATES
        words = found.verdict.explanation
        lines += (f"The first difference on the way: {lowered(words)}" if same else words).splitlines()
    if found.steps[0] != found.steps[1] and found.verdict.likely_cause.meaning != Meaning.STEPS:
        lines.append(f"The reference makes {report.plural(found.steps[0], 'step')}, the candidate {found.steps[1]}.")
    if found.events:
        step, ours, theirs = found.events
        lines.append(f"In step {step}, the loops make different calls, or make them in a different order:")
        lines.append(f"  reference  {event_sequence(ours)}")
        lines.append(f"  candidate  {event_sequence(theirs)}")
        lines += past_the_scaler(ours, theirs)
    if found.draws is not None:
        effect = "" if found.outcome == TraceOutcome.DIFFERENT else ", which has no effect on the updates here"
        lines.append(f"From step {found.draws} on, torch's random stream is in a different state{effect}.")
    if found.not_comparable and found.outcome != TraceOutcome.NOT_COMPARABLE:
        lines.append(f"Note: not compared are {_two_hashes(found)}.")
    return lines + [f"Note: {doubt}." for doubt in found.doubts]


def past_the_scaler(ours: Sequence[str], theirs: Sequence[str]) -> list[str]:
    """Return one sentence if both loops scale the loss, but only one steps through the scaler; else no sentence."""
    through = ["scaler_step" in events for events in (ours, theirs)]
    scaled = all({"unscaled", "update"} & {*events} and "step" in events for events in (ours, theirs))
    if through[0] == through[1] or not scaled:
        return []
    who = "candidate" if through[0] else "reference"
    return [f"The {who} calls optimizer.step itself, not scaler.step: a step whose gradients overflow is not skipped."]


def event_sequence(events: Sequence[str]) -> str:
    """Return events in order as text, with repetitions counted.

    >>> event_sequence(["forward", "accumulated", "forward", "accumulated", "ready", "step"])
    '2 × (forward → accumulated) → ready → step'
    """
    pairs = [" → ".join(pair) if len(pair) > 1 else pair[0] for pair in _paired(events)]
    runs = ((thing, len(list(again))) for thing, again in groupby(pairs))
    return (
        " → ".join(thing if n == 1 else f"{n} × ({thing})" if " " in thing else f"{n} × {thing}" for thing, n in runs)
        or "nothing"
    )


def _paired(events: Sequence[str]) -> list[list[str]]:
    pairs: list[list[str]] = []
    for event in events:
        if event == "accumulated" and pairs and pairs[-1] == ["forward"]:
            pairs[-1].append(event)
        else:
            pairs.append([event])
    return pairs


def difference_as_json(found: TraceDifference) -> dict[str, object]:
    """Return everything as a dict for JSON."""
    first = None
    if found.verdict.first:
        comparison, mismatch = found.verdict.first
        first = {
            "step": comparison.place.step,
            "phase": comparison.place.phase.name.lower(),
            "microbatch": comparison.place.microbatch,
            **asdict(mismatch),
            "figures": finite(mismatch.figures) if mismatch.figures else None,
        }
    step, ours, theirs = found.events or (None, [], [])
    return {
        "parity": found.parity,
        "outcome": found.outcome,
        "same_updates": found.updates.same,
        "headline": _headline(found),
        "steps": found.verdict.steps,
        "numbers": found.verdict.numbers,
        "first": first,
        "meaning": found.verdict.likely_cause.meaning,
        "explanation": found.verdict.explanation,
        "unmatched": found.unmatched or None,
        "events": {"step": step, "reference": ours, "candidate": theirs} if found.events else None,
        "random_numbers_differ_from_step": found.draws,
        "doubts": found.doubts,
        "cells": [
            {"phase": phase.name.lower(), "part": part, **asdict(cell)}
            for (phase, part), cell in found.verdict.cells.items()
            if cell.compared
        ],
    }


def print_difference(found: TraceDifference, console: Console) -> None:
    """Print the verdict, then the table, then the first difference."""
    before = len(sentences(found)) if found.outcome == TraceOutcome.NOTHING else 1 + bool(found.unmatched)
    for line in sentences(found)[:before]:
        console.print(line, style="bold green" if found.parity else "bold red", soft_wrap=True, markup=False)
    console.print(report.verdict_table(found.verdict))
    for line in sentences(found)[before:]:
        console.print(line, soft_wrap=True, markup=False)
