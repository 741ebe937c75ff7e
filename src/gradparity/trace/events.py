"""The content of one line of a trace: the event, its step, and the values seen at it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from gradparity.parity.place_in_training import END, Place
from gradparity.parity.state import Part
from gradparity.trace.fingerprint import FingerprintValue
from gradparity.training import Phase


class Event(StrEnum):
    """An event of the loop. Events in :data:`PHASE` come with values of the loop; the others have only a name."""

    ZERO_GRAD = "zero_grad"
    FORWARD = "forward"
    """A loss is about to be differentiated."""
    ACCUMULATED = "accumulated"
    """The gradients of the loss have reached ``p.grad``."""
    UNSCALED = "unscaled"
    CLIP = "clip"
    SCALER_STEP = "scaler_step"
    """``scaler.step`` was called on an enabled scaler."""
    READY = "ready"
    """The optimizer is about to read gradients and hyperparameters, or would be if the step were not skipped."""
    STEP = "step"
    SKIP = "skip"
    """``scaler.step`` returned without calling ``optimizer.step``, because a gradient was not finite."""
    UPDATE = "update"
    """The loss scale was updated."""
    SCHEDULE = "schedule"
    END = "end"
    """The recording ends."""


PHASE: Mapping[Event, Phase] = {
    Event.FORWARD: Phase.FORWARD,
    Event.ACCUMULATED: Phase.ACCUMULATED,
    Event.UNSCALED: Phase.UNSCALED,
    Event.READY: Phase.CLIPPED,
    Event.STEP: Phase.STEPPED,
    Event.SKIP: Phase.STEPPED,
    Event.END: Phase.STEPPED,
}


@dataclass(frozen=True)
class Record:
    """One event of a loop."""

    event: Event
    step: int
    """The number of optimizer steps before this event, made or skipped."""
    microbatch: int | None = None
    """The number of microbatches of this step before this event; ``None`` for events of the whole step."""
    parts: Mapping[Part, Mapping[str, FingerprintValue]] = field(default_factory=dict)
    tensors: str | None = None
    """The file with the tensors themselves, relative to the trace; ``None`` if they were not kept."""

    @property
    def place(self) -> Place | None:
        """Return the place at which its values are compared; ``None`` for an event that has only a name."""
        if self.event == Event.END:
            return END
        return Place(self.step, self.microbatch, PHASE[self.event]) if self.event in PHASE else None


def unchanged(name: str) -> str:
    """Return ``name`` unchanged."""
    return name


@dataclass(frozen=True)
class Trace:
    """A recorded loop."""

    about: Mapping[str, str | int]
    """The machine and versions that the loop ran with; the bits depend on them."""
    records: list[Record]
    folder: str | None = None
    complete: bool = True
    """True if the recording finished."""
    notes: tuple[str, ...] = ()
    """Things that the recording lacks, one sentence each."""
    rename: Callable[[str], str] = unchanged
    """Maps a name in ``folder`` to the name in ``records``."""
