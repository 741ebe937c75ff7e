"""The position of a watched loop in its training: the step, the microbatch, and a backward still awaited."""

from dataclasses import dataclass

from gradparity.parity.state import Part
from gradparity.trace.events import Event, Record
from gradparity.trace.gradients_before import GradientsBefore
from gradparity.trace.late_records import LateRecord, LateRecords
from gradparity.trace.snapshot import (
    Snapshot,
    TrainingObjects,
    at_accumulated,
    at_ready,
    at_stepped,
    live_buffers,
)
from gradparity.trace.to_cpu import LateSnapshot, frozen, to_cpu


@dataclass(frozen=True)
class _Awaited:
    """A backward whose gradients were not yet looked for in ``p.grad``.

    They arrive there later. Gradients of ``autograd.grad`` arrive when the loop writes them. On several ranks, all
    gradients arrive when they have been exchanged.
    """

    before: GradientsBefore | None
    """The gradients before the backward; ``None`` if it is a microbatch even if they do not change."""
    buffers: Snapshot
    """The buffers after the backward. The next forward may change them before the gradients are written."""


class Timeline:
    """Counts steps and microbatches, and passes on a record of each event.

    Args:
        watched: the objects that the loop trains with.
        records: takes the record of each event.
        keeps: whether the values are kept too. If so, those on a GPU are copied, and those written later as well.
    """

    def __init__(self, watched: TrainingObjects, records: LateRecords, keeps: bool) -> None:
        self.watched, self.records, self.keeps = watched, records, keeps
        self.step = self.microbatch = 0
        self._awaited: _Awaited | None = None

    def settle(self) -> None:
        """Record the awaited backward, if there is one and its gradients have arrived in ``p.grad``.

        Call this before any new event: gradients that a loop writes to ``p.grad`` by hand are there by then.
        """
        if self._awaited is not None:
            awaited, self._awaited = self._awaited, None
            if awaited.before is None or awaited.before.were_written():
                self.accumulated(awaited.buffers)

    def wait_for_gradients(self, before: GradientsBefore | None) -> None:
        """Look at the gradients later. If they were not written since ``before``, it was no microbatch."""
        self._awaited = _Awaited(before, frozen({Part.BUFFERS: live_buffers(self.watched)}))

    def accumulated(self, buffers: Snapshot | None = None) -> None:
        """Record the values that a backward has written, and count the microbatch."""
        self.tell(Event.ACCUMULATED, at_accumulated(self.watched) | (buffers or {}))
        self.microbatch += 1

    def be_ready(self) -> None:
        """Record the values that the optimizer reads."""
        self.settle()
        self.tell(Event.READY, at_ready(self.watched))

    def stepped(self, event: Event) -> None:
        """Record the values after a step, made or skipped, and count the step."""
        self.tell(event, at_stepped(self.watched))
        self.step += 1
        self.microbatch = 0

    def tell(self, event: Event, seen: Snapshot | None = None) -> None:
        """Record an event, and the values seen at it."""
        self.records.add(self.look(event, seen or {}))

    def look(self, event: Event, seen: Snapshot) -> LateRecord:
        """Return the record of an event and the values behind it, to be written now."""
        microbatch = self.microbatch if event in (Event.FORWARD, Event.ACCUMULATED) else None
        read = LateSnapshot(seen)
        return LateRecord(Record(event, self.step, microbatch), read, to_cpu(seen) if self.keeps else seen)

    def look_for_later(self, event: Event, seen: Snapshot) -> LateRecord:
        """Return the record of an event, which may be written after the values behind it have changed."""
        late = self.look(event, seen)
        return late._replace(seen=frozen(late.seen) if self.keeps else {})
