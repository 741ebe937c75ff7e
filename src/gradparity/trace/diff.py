"""Comparison of two traces: the comparisons of lockstep, made after the runs and from fingerprints."""

from collections.abc import Iterator
from dataclasses import replace

from gradparity.parity.difference_kinds import Kind
from gradparity.parity.lockstep import ALL, STOPS, Comparison, side_by_side, with_parts
from gradparity.parity.mismatches import Mismatch
from gradparity.parity.place_in_training import END, Place
from gradparity.parity.state import Part
from gradparity.trace.compare_fingerprints import are_comparable, compare_records, hashed_numbers, values_of
from gradparity.trace.events import Record, Trace
from gradparity.trace.explain_traces import likely_cause_in_traces
from gradparity.trace.matching_names import named_alike
from gradparity.trace.until_difference import sides

_UNJUDGED = Part.RNG
"""The part whose differences do not count in a comparison.

A data loader draws a seed from the global stream without any effect. A draw that matters shows in a loss.
"""


def compare_traces(reference: Trace, candidate: Trace) -> Iterator[Comparison]:
    """Yield comparisons of two traces, in the order of training; the states at the end come last.

    Names are compared without the components that wrappers add. A prefix that all names of one side share is also
    dropped, such as the ``model.`` of a LightningModule that holds a model.
    """
    reference, candidate = named_alike(reference, candidate)
    explained = False
    scales = _scales(reference)
    for place, ours, theirs in _paired(reference, candidate):
        found = _compared(place, (reference, ours), (candidate, theirs), scales.get(place.step, 1.0))
        if found.mismatches and not explained:
            explained = True
            yield replace(
                found, likely_cause=likely_cause_in_traces(found, *sides(found, (reference, ours), (candidate, theirs)))
            )
        else:
            yield found


def first_difference(reference: Trace, candidate: Trace) -> Comparison | None:
    """Return the first comparison of two traces that shows a difference; ``None`` if there is none."""
    return next((found for found in compare_traces(reference, candidate) if found.mismatches), None)


def count_not_comparable(reference: Trace, candidate: Trace) -> int:
    """Return the number of values, over all places, whose digests were made by two hashes, on a GPU and on the CPU."""
    reference, candidate = named_alike(reference, candidate)
    return sum(
        not are_comparable(value, theirs.parts.get(part, {}).get(name))
        for _, ours, theirs in _paired(reference, candidate)
        if ours and theirs
        for part, values in ours.parts.items()
        for name, value in values.items()
    )


def _paired(reference: Trace, candidate: Trace) -> Iterator[tuple[Place, Record | None, Record | None]]:
    """Yield the records of each place, in the order of training; the states at the end come last."""
    ours, theirs = _by_step(reference), _by_step(candidate)
    for step in sorted(ours.keys() | theirs.keys()):
        yield from side_by_side(iter(ours.get(step, [])), iter(theirs.get(step, [])))
    if reference.complete and candidate.complete:
        yield END, reference.records[-1], candidate.records[-1]


def _by_step(trace: Trace) -> dict[int, list[tuple[Place, Record]]]:
    """Return the records of each step that have a place, with it."""
    records: dict[int, list[tuple[Place, Record]]] = {}
    for r in trace.records:
        if r.place is not None and r.place != END:
            records.setdefault(r.step, []).append((r.place, r))
    return records


def _compared(
    place: Place, reference: tuple[Trace, Record | None], candidate: tuple[Trace, Record | None], scale: float
) -> Comparison:
    found = Comparison(place, None, None, {}, 0, [], {}, scale)
    ours, theirs = reference[1], candidate[1]
    if ours and theirs:
        return _filled(found, (reference[0], ours), (candidate[0], theirs))
    if place.microbatch is None:
        words = (STOPS, "does not") if ours else ("does not", STOPS)
        found.mismatches.append(Mismatch(Part.OPTIMIZER, ALL, Kind.PRESENCE, *words))
    return found


def _filled(found: Comparison, reference: tuple[Trace, Record], candidate: tuple[Trace, Record]) -> Comparison:
    """Compare the values that two records of one place hold, and return ``found`` with the result."""
    parts = [p for p in Part if p != _UNJUDGED and (p in reference[1].parts or p in candidate[1].parts)]
    compared = {part: compare_records(part, reference, candidate) for part in parts}
    ours, theirs = ({part: values_of(part, record) for part in parts} for _, record in (reference, candidate))
    names = {part: len(ours[part].keys() | theirs[part].keys()) for part in parts}
    numbers = sum(hashed_numbers(value) for values in ours.values() for value in values.values())
    return with_parts(found, names, compared, numbers)


def _scales(trace: Trace) -> dict[int, float]:
    """Return the loss scale at the beginning of each step."""
    scales: dict[int, float] = {}
    for r in trace.records:
        scale = r.parts.get(Part.SCALER, {}).get("scale")
        if isinstance(scale, float):
            scales.setdefault(r.step, scale)
    return scales
