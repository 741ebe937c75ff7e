"""The calls and random draws of two traces, compared beside their values: the way that two loops go."""

from collections.abc import Mapping, Sequence

from gradparity.parity.state import Part
from gradparity.trace.events import Event, Trace
from gradparity.trace.fingerprint import FingerprintValue


def first_other_draw(reference: Trace, candidate: Trace) -> int | None:
    """Return the first step at whose last forward the global random stream is in a different state, or ``None``.

    Return ``None`` also if one loop passes through all states of the other: its stream was only seen more often.
    """
    ours, theirs = _states(reference), _states(candidate)
    if _within(ours, theirs) or _within(theirs, ours):
        return None
    at, there = dict(ours), dict(theirs)  # the last state of each step
    return next((step for step in at if step in there and at[step] != there[step]), None)


def _states(trace: Trace) -> list[tuple[int, Mapping[str, FingerprintValue]]]:
    """Return the states of the random stream in the order seen, each with its step."""
    return [(r.step, r.parts[Part.RNG]) for r in trace.records if Part.RNG in r.parts]


def _within(few: Sequence[tuple[int, object]], many: Sequence[tuple[int, object]]) -> bool:
    """Return whether all states of ``few`` occur in ``many``, in the same order."""
    states = [state for _, state in many]
    at = 0
    for _, state in few:
        try:
            at = states.index(state, at)
        except ValueError:
            return False
    return True


def first_other_events(reference: Trace, candidate: Trace) -> tuple[int, list[str], list[str]] | None:
    """Return the first step whose events or their order differ, with the events of each loop; or ``None``."""
    ours, theirs = _events(reference), _events(candidate)
    for step in sorted(ours.keys() | theirs.keys()):
        if ours.get(step) != theirs.get(step):
            return step, ours.get(step, []), theirs.get(step, [])
    return None


def _events(trace: Trace) -> dict[int, list[str]]:
    """Return the events of each step.

    Emptying the gradients after a step or before the next one has the same effect. Both count as before the next one.
    """
    events: dict[int, list[str]] = {}
    begun = -1
    for r in trace.records:
        late = r.event in (Event.UPDATE, Event.SCHEDULE) and begun < r.step
        step = r.step - 1 if late else r.step
        begun = r.step if r.event == Event.FORWARD else begun
        again = r.event == Event.ZERO_GRAD and events.get(step, [""])[-1] == r.event
        if r.event != Event.END and not again:
            events.setdefault(step, []).append(str(r.event))
    first = min(events, default=0)
    if events.get(first, [""])[0] == Event.ZERO_GRAD:
        del events[first][0]  # there were no gradients to empty
    return {step: done for step, done in events.items() if done != [Event.ZERO_GRAD]}
