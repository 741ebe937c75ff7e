"""Where a watched loop is in its training: which step, which microbatch, and what is still awaited."""

from collections.abc import Callable
from dataclasses import dataclass

from gradparity.parity.state import Part
from gradparity.trace.record import Event, Record
from gradparity.trace.snapshot import Seen, Watched, at_accumulated, at_ready, at_stepped, buffers, gradients
from gradparity.trace.to_cpu import Fingerprints, fingerprints, frozen, on_host

Look = tuple[Record, Seen]
"""What is written of an event, and the live values behind it."""


@dataclass(frozen=True)
class Awaited:
    """A backward whose gradients were not yet looked for in ``p.grad``.

    They get there later: those of ``autograd.grad`` when the loop wires them in, and on several ranks any, when they
    have been exchanged.
    """

    before: Fingerprints | None
    """The gradients before; ``None`` where it was a microbatch whether they change or not."""
    buffers: Seen
    """As the backward left them: the next forward may move them before the gradients are wired in."""


class Timeline:
    """Counts steps and microbatches, and hands on a record of each event.

    Args:
        watched: what the loop trains with.
        write: takes each record with the live values behind it.
        keeps: whether ``write`` keeps the values, so that those which it gets late have to be copied.
    """

    def __init__(self, watched: Watched, write: Callable[[Record, Seen], None], keeps: bool) -> None:
        self.watched, self.write, self.keeps = watched, write, keeps
        self.step = self.microbatch = 0
        self._awaited: Awaited | None = None

    def settle(self) -> None:
        """Before anything new: what a loop has wired into ``p.grad`` by hand is there now."""
        if self._awaited is not None:
            awaited, self._awaited = self._awaited, None
            if awaited.before is None or fingerprints(gradients(self.watched)) != awaited.before:
                self.accumulated(awaited.buffers)

    def wait_for_gradients(self, before: Fingerprints | None) -> None:
        """Look at the gradients later; if they are then as ``before``, it was no microbatch."""
        self._awaited = Awaited(before, frozen({Part.BUFFERS: buffers(self.watched)}))

    def accumulated(self, buffers: Seen | None = None) -> None:
        """Record what a backward has written, and count the microbatch."""
        self.tell(Event.ACCUMULATED, at_accumulated(self.watched) | (buffers or {}))
        self.microbatch += 1

    def be_ready(self) -> None:
        """Record what the optimizer reads."""
        self.settle()
        self.tell(Event.READY, at_ready(self.watched))

    def stepped(self, event: Event) -> None:
        """Record what the optimizer has written, or not, and count the step."""
        self.tell(event, at_stepped(self.watched))
        self.step += 1
        self.microbatch = 0

    def tell(self, event: Event, seen: Seen | None = None) -> None:
        """Record an event, and what there is to see at it."""
        self.write(*self.look(event, seen or {}))

    def look(self, event: Event, seen: Seen) -> Look:
        """Return the record of an event, to be written now."""
        microbatch = self.microbatch if event in (Event.FORWARD, Event.ACCUMULATED) else None
        here = on_host(seen)
        return Record(event, self.step, microbatch, fingerprints(here)), here

    def look_for_later(self, event: Event, seen: Seen) -> Look:
        """Return the record of an event, which may be written when the values behind it are no longer these."""
        record, here = self.look(event, seen)
        return record, frozen(here) if self.keeps else {}
