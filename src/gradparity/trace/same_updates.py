"""Comparison of the updates of two loops: the values after every step, whatever happens between steps."""

from dataclasses import dataclass

from gradparity.parity.state import Part
from gradparity.trace.compare_fingerprints import are_comparable, fingerprint_kinds
from gradparity.trace.events import Event, Record, Trace
from gradparity.trace.until_difference import STEP_EVENTS

_LATER = {
    Part.BUFFERS: "the buffers",
    Part.SCALER: "the loss scaler's state",
    Part.SCHEDULER: "the schedule's state",
    Part.OPTIMIZER: "the optimizer's hyperparameters",
    Part.PARAMETERS: "the parameters",
}
"""The parts that are seen when a recording ends and that affect later steps, with their names in sentences."""


@dataclass(frozen=True)
class Updates:
    """The values that are the same bits after every step of two loops."""

    steps: int = 0
    parameters: bool = False
    state: bool = False
    """True if the optimizer's state, apart from its hyperparameters, is the same."""
    ends_apart: tuple[Part, ...] = ()
    """The parts that differ when both recordings end."""

    @property
    def same(self) -> bool:
        """Return whether both loops make the same updates.

        They must make equally many steps, at least one, and have the same parameters after each step and at the end.
        """
        return self.steps > 0 and self.parameters and Part.PARAMETERS not in self.ends_apart

    def __str__(self) -> str:
        steps = f"each of {self.steps} steps" if self.steps > 1 else "the only step"
        what = "parameters and the optimizer's state" if self.state else "parameters"
        words = f"The same updates: after {steps}, all {what} are identical, bit for bit"
        if not self.state:
            words += "; the optimizer's state is not"
        if self.ends_apart:
            return f"{words}; when the recordings end, {' and '.join(_LATER[part] for part in self.ends_apart)} differ."
        return f"{words}. The loops differ on the way." if self.state else f"{words}."


def updates(reference: Trace, candidate: Trace) -> Updates:
    """Compare the values of two loops, whose names match, after each step and at the end."""
    ours, theirs = ([r for r in trace.records if r.event in STEP_EVENTS] for trace in (reference, candidate))
    if len(ours) != len(theirs):
        return Updates()
    pairs = list(zip(ours, theirs, strict=True))
    ends = [trace.records[-1] for trace in (reference, candidate) if trace.records]
    apart = [part for part in _LATER if len(ends) == 2 and not _same(part, ends[0], ends[1])]
    ended = all(end.event == Event.END for end in ends)
    state = all(_same(Part.OPTIMIZER, a, b) for a, b in pairs)
    return Updates(
        len(pairs),
        all(_same(Part.PARAMETERS, a, b) for a, b in pairs) and any(r.parts.get(Part.PARAMETERS) for r in ours),
        state,
        # A different state has its own words above. If the state is the same, its hyperparameters are what differs.
        tuple(part for part in apart if state or part != Part.OPTIMIZER) if ended else (),
    )


def _same(part: Part, one: Record, other: Record) -> bool:
    a, b = one.parts.get(part, {}), other.parts.get(part, {})
    return a.keys() == b.keys() and all(
        are_comparable(a[name], b[name]) and not any(fingerprint_kinds(a[name], b[name])) for name in a
    )
