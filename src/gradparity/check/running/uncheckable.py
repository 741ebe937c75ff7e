"""Reasons why a loop cannot be checked: it raised, trained nothing, or trained other things than it was given.

No fault of a step explains these. Each reason is a predicate whose subject is the loop.
"""

import math
from collections.abc import Iterable, Mapping
from itertools import takewhile

from gradparity.check.running.loop_end import EndKind
from gradparity.check.running.observe import ObservedLoop
from gradparity.parity.state import Part
from gradparity.processes.user_frames import in_brackets
from gradparity.trace.events import Event, Record
from gradparity.trace.fingerprint import Fingerprint, FingerprintValue


def why_uncheckable(loop: ObservedLoop, instead: str, trains_elsewhere: bool = False) -> str:
    """Return the reason why the loop cannot be checked for more than one fault; empty if it can.

    Args:
        loop: the observed loop.
        instead: a predicate on what it trains instead of what it was given, from
            :mod:`gradparity.check.running.trained_objects`.
        trains_elsewhere: whether it trains the given model without the given optimizer.
    """
    end, no_gradient = loop.end, instead or no_gradients(loop)
    if not end.finished:
        did = "calls exit instead of returning" if end.kind == EndKind.EXITED else "did not finish"
        before = f". Before that, it {no_gradient}" if no_gradient else ""
        seek = "; call plan.checkpoint.seek(0) before each save and each load" if end.exception == "EOFError" else ""
        return f"{did}: {str(end).rstrip('.')}{in_brackets(end.frame)}{seek}{before}"
    if not (steps_made(loop) or trains_elsewhere):
        events = {record.event for record in loop.trace.records}
        did = "computed gradients, but" if Event.ACCUMULATED in events else "computed no gradients, and"
        return instead or f"{did} never made a step with the optimizer that it was given, so there is nothing to check"
    return no_gradient or (no_finite_gradients(loop) if _steps_without_numbers(loop)[:1] == [0] else "")


def steps_made(loop: ObservedLoop) -> int:
    """Return the number of steps that a loop made with its optimizer, or skipped."""
    return sum(record.event in (Event.STEP, Event.SKIP) for record in loop.trace.records)


def no_gradients(loop: ObservedLoop) -> str:
    """Return a predicate on a loop whose optimizer gets no gradients; empty for any other loop."""
    records = [r for r in loop.trace.records if r.event in (Event.ACCUMULATED, Event.READY)]
    if any(_prints(r, Part.GRADIENTS) for r in records) or not (records or loop.gradients_elsewhere):
        return ""
    if loop.gradients_elsewhere:
        return "computes gradients, but none for the given model's parameters; maybe it trains a copy"
    return "computes no gradient for any parameter of the given model"


def no_finite_gradients(loop: ObservedLoop) -> str:
    """Return a predicate on a loop in which, from some step on, all gradients are NaN or infinite; else empty."""
    if not (steps := _steps_without_numbers(loop)):
        return ""
    step = steps[0]
    first = next(r for r in loop.trace.records if r.step == step and r.event == Event.FORWARD)
    skips = sum(r.event == Event.SKIP and r.step >= step for r in loop.trace.records)
    number = "all" if skips == len(steps) else f"{skips} of"
    result = f"{number} its last {len(steps)} steps are skipped" if skips else "all weights become NaN or infinite"
    start = "from the beginning" if step == 0 else f"from step {step} on"
    if any(not math.isfinite(p.norm) for p in _prints(first, Part.PARAMETERS)):
        return f"has NaN or infinite weights {start}, so no gradient is finite, and {result}"
    if _none_finite(_prints(first, Part.LOSS)) and not _none_finite(_prints(first, Part.GRADIENTS)):
        return f"computes a NaN or infinite loss {start}, so no gradient is finite, and {result}"
    return f"computes no finite gradient {start}, although the loss is finite, and {result}"


def _steps_without_numbers(loop: ObservedLoop) -> list[int]:
    """Return the last steps, if at least two, in which no gradient is finite."""
    ready = [r for r in reversed(loop.trace.records) if r.event == Event.READY]
    last = [r.step for r in takewhile(lambda r: _none_finite(_prints(r, Part.GRADIENTS)), ready)]
    return last[::-1] if len(last) > 1 else []


def _prints(record: Record, part: Part) -> list[Fingerprint]:
    values: Mapping[str, FingerprintValue] = record.parts.get(part, {})
    return [value for value in values.values() if isinstance(value, Fingerprint)]


def _none_finite(prints: Iterable[Fingerprint]) -> bool:
    norms = [p.norm for p in prints]
    return bool(norms) and not any(map(math.isfinite, norms))
