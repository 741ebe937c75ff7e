"""One of two traces up to their first difference: the events, gradients and losses seen by then."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from gradparity.parity.lockstep import Comparison
from gradparity.parity.place_in_training import END
from gradparity.parity.state import Part
from gradparity.trace.digest import digest_by
from gradparity.trace.events import Event, Record, Trace
from gradparity.trace.fingerprint import Fingerprint, FingerprintValue

NAMES = ("reference", "candidate")

STEP_EVENTS = (Event.STEP, Event.SKIP)

_MOST_ZEROS = 2**24
"""Largest tensor, in bytes, that is_zero can recognize; it hashes that many zeros."""


@dataclass(frozen=True)
class Side:
    """A trace, and the place in it that is compared with a different trace."""

    trace: Trace
    step: int
    record: Record | None
    """The record at the place; ``None`` if only the other loop reaches the place."""

    @cached_property
    def past(self) -> Sequence[Record]:
        """Return all records before the place."""
        records = self.trace.records
        if self.record is not None:
            return records[: next(i for i, r in enumerate(records) if r is self.record)]
        return [r for r in records if r.step <= self.step]

    @cached_property
    def here(self) -> Sequence[Record]:
        """Return the records of this step that come before the place."""
        return [r for r in self.past if r.step == self.step]

    def count(self, event: Event) -> int:
        """Return the number of times that ``event`` happened before the place."""
        return sum(r.event == event for r in self.past)

    def since(self, *events: Event) -> list[Event]:
        """Return the events after the last of ``events`` and before the place."""
        last = max((i for i, r in enumerate(self.past) if r.event in events), default=-1)
        return [r.event for r in self.past[last + 1 :]]

    def after_first_backward(self) -> list[Event]:
        """Return the events of this step after its first backward and before the place."""
        first = next((i for i, r in enumerate(self.here) if r.event == Event.ACCUMULATED), len(self.here))
        return [r.event for r in self.here[first + 1 :]]

    def latest(self, *events: Event) -> Record | None:
        """Return the last record of one of ``events`` before the place, in any step; ``None`` if there is none."""
        return next((r for r in reversed(self.past) if r.event in events), None)

    @property
    def before(self) -> Record | None:
        """Return the last record with gradients in this step before the place; ``None`` if there is none."""
        return next((r for r in reversed(self.here) if Part.GRADIENTS in r.parts), None)

    @property
    def backwards(self) -> int:
        """Return the number of backwards in this step."""
        return sum(r.event == Event.ACCUMULATED for r in self.trace.records if r.step == self.step)

    @property
    def steps(self) -> int:
        """Return the number of steps in the trace, made or skipped."""
        return count_steps(self.trace)

    @property
    def losses(self) -> list[float]:
        """Return the losses that are differentiated in this step, with their signs, one for each backward."""
        looks = (r for r in self.trace.records if r.event == Event.FORWARD and r.step == self.step)
        values = [list(r.parts.get(Part.LOSS, {}).values()) for r in looks]
        single = [v[0].norm for v in values if len(v) == 1 and isinstance(v[0], Fingerprint)]
        return single if len(single) == len(values) else []


def count_steps(trace: Trace) -> int:
    """Return the number of steps in a trace, made or skipped."""
    return sum(r.event in STEP_EVENTS for r in trace.records)


def sides(
    found: Comparison, reference: tuple[Trace, Record | None], candidate: tuple[Trace, Record | None]
) -> tuple[Side, Side]:
    """Return both traces, with the record of each at the place of ``found``."""
    step = found.place.step
    if found.place == END:
        step = max(r.step for trace, _ in (reference, candidate) for r in trace.records)
    return Side(reference[0], step, reference[1]), Side(candidate[0], step, candidate[1])


def recorded_gradients(record: Record | None) -> Mapping[str, FingerprintValue]:
    """Return the gradients in a record."""
    return record.parts.get(Part.GRADIENTS, {}) if record else {}


def digest(value: FingerprintValue) -> str | None:
    """Return the hash of a tensor; ``None`` for any other value."""
    return value.digest if isinstance(value, Fingerprint) else None


def gradient_norm(record: Record | None) -> float:
    """Return the L2 norm of all gradients together; NaN if it is not finite or a norm was not recorded."""
    norm = math.hypot(*(value.norm for value in recorded_gradients(record).values() if isinstance(value, Fingerprint)))
    return norm if math.isfinite(norm) else math.nan


def is_zero(value: FingerprintValue) -> bool:
    """Return whether a dense tensor is zero everywhere, with one sign."""
    if not isinstance(value, Fingerprint) or value.norm != 0 or value.layout != "dense":
        return False
    dtype = getattr(torch, value.dtype, None)
    width = dtype.itemsize if isinstance(dtype, torch.dtype) else 0
    count = math.prod(value.shape)
    if not 0 < width * count <= _MOST_ZEROS:
        return False
    positive, negative = bytes(width), bytes(width - 1) + b"\x80"  # the sign is the last bit of the last byte
    zeros = (torch.frombuffer(bytearray(zero * count), dtype=torch.uint8) for zero in (positive, negative))
    return any(digest_by(value.by, content) == value.digest for content in zeros)


def scale_of(side: Side) -> float:
    """Return the loss scale that the scaler had at the beginning of this step; 1 without a scaler."""
    looks = (r.parts[Part.SCALER].get("scale") for r in side.here if Part.SCALER in r.parts)
    return next((scale for scale in looks if isinstance(scale, float)), 1.0)


def same_way(ours: Side, theirs: Side) -> bool:
    """Return whether both loops have the same events in the same order since the first forward of this step.

    If they do not, rounding may hide a different cause.
    """
    ways = [
        [r.event for r in side.here[next((i for i, r in enumerate(side.here) if r.event == Event.FORWARD), 0) :]]
        for side in (ours, theirs)
    ]
    return ways[0] == ways[1]
