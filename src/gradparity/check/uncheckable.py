"""Reasons why a loop cannot be checked: it raised, trained nothing, or trained something else.

No fault of a step explains these. Each reason is a predicate whose subject is the loop.
"""

import math
from collections.abc import Iterable, Mapping
from itertools import takewhile

from gradparity.check.observe import Observed
from gradparity.parity.state import Part
from gradparity.trace.events import Event, Record
from gradparity.trace.fingerprint import Fingerprint, FingerprintValue


def plight(seen: Observed, instead: str) -> str:
    """Return why the loop cannot be checked for more than one fault; empty if it can.

    Args:
        seen: the loop as it was observed.
        instead: what it trains instead of what it was given, in the words of :mod:`gradparity.check.trained_objects`.
    """
    if seen.error is not None:
        where = f" ({seen.where})" if seen.where else ""
        did = "calls exit instead of returning" if seen.error.startswith("SystemExit") else "did not come to its end"
        before = f". Before that, it {instead or no_gradients(seen)}" if instead or no_gradients(seen) else ""
        return f"{did}: {seen.error.rstrip('.')}{where}{before}"
    if not stepped(seen):
        events = {record.event for record in seen.trace.records}
        did = "computed gradients, but" if Event.ACCUMULATED in events else "computed no gradients, and"
        return instead or f"{did} never made a step with the optimizer that it was given, so there is nothing to judge"
    return instead or no_gradients(seen) or (no_numbers(seen) if lost(seen)[:1] == [0] else "")


def stepped(seen: Observed) -> bool:
    """Return whether a loop has reached the optimizer."""
    return any(r.event in (Event.STEP, Event.SKIP) for r in seen.trace.records)


def no_gradients(seen: Observed) -> str:
    """Return a predicate on a loop whose optimizer gets no gradients; empty for any other loop."""
    looked = [r for r in seen.trace.records if r.event in (Event.ACCUMULATED, Event.READY)]
    if any(_prints(r, Part.GRADIENTS) for r in looked) or not (looked or seen.elsewhere):
        return ""
    if seen.elsewhere:
        return "computes gradients, but none for the parameters of the model that it was given: those of a copy, maybe"
    return "computes no gradient for any parameter of the model that it was given"


def no_numbers(seen: Observed) -> str:
    """Return a predicate on a loop in which, from some step on, all gradients are NaN or infinite; else empty."""
    if not (steps := lost(seen)):
        return ""
    step = steps[0]
    first = next(r for r in seen.trace.records if r.step == step and r.event == Event.FORWARD)
    came_first = "no gradient"
    if not _none_finite(_prints(first, Part.GRADIENTS)) and _none_finite(_prints(first, Part.LOSS)):
        came_first = "the loss is"
    if any(not math.isfinite(p.norm) for p in _prints(first, Part.PARAMETERS)):
        came_first = "the weights are"
    skips = sum(r.event == Event.SKIP and r.step >= step for r in seen.trace.records)
    so = f"{skips} of its last {len(steps)} steps are skipped" if skips else "every weight is lost"
    began = "from the beginning" if step == 0 else f"from step {step} on"
    if came_first == "no gradient":
        return f"computes no finite gradient {began}, of a loss that is finite, and {so}"
    return f"computes with NaN or infinities {began}: there {came_first} not finite, no gradient is, and {so}"


def lost(seen: Observed) -> list[int]:
    """Return the last steps, if at least two, in which no gradient is finite."""
    ready = [r for r in reversed(seen.trace.records) if r.event == Event.READY]
    last = [r.step for r in takewhile(lambda r: _none_finite(_prints(r, Part.GRADIENTS)), ready)]
    return last[::-1] if len(last) > 1 else []


def _prints(record: Record, part: Part) -> list[Fingerprint]:
    values: Mapping[str, FingerprintValue] = record.parts.get(part, {})
    return [value for value in values.values() if isinstance(value, Fingerprint)]


def _none_finite(prints: Iterable[Fingerprint]) -> bool:
    norms = [p.norm for p in prints]
    return bool(norms) and not any(map(math.isfinite, norms))
